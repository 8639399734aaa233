"""Raw files become the same tokens once, whoever asks, and damage is found."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude import durable
from etude.data import prepared, tally
from etude.data.bpe import train_tokenizer
from etude.data.corpus import Corpus
from etude.data.loader import iterate_once
from etude.data.prepared import prepare
from etude.data.samples.sample import Samples
from etude.errors import InputError, StorageError
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def built(cache: Path) -> Path:
    return cache / "prepared"


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    rows = [
        {"text": f"def f{index}(x):\n    return x + {index}\n", "repo": f"r{index % 7}"}
        for index in range(40)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": " ", "repo": "r0"}]))
    return file


def recipe_of(*paths: Path, **data: Any) -> Recipe:
    source = {name: data.pop(name) for name in ("field", "group_by", "glob") if name in data}
    tokenizer = data.pop("tokenizer", {"train_vocab_size": 300})
    model = data.pop("model", {})
    sources = [{"path": str(path), **source} for path in paths]
    train = {"steps": 10, "global_batch_size": 4, "seq_len": data.pop("seq_len", 16)}
    return recipe_from(
        {
            "name": "x",
            "model": model,
            "tokenizer": tokenizer,
            "data": {"train": sources, **data},
            "train": train,
        }
    )


def texts(split: Samples | None, corpus: Corpus) -> list[str]:
    """The documents of a split, read back through its rows."""
    assert split is not None
    ids = np.concatenate([split.sample(index).labels for index in range(len(split))])
    pieces = np.split(ids, np.flatnonzero(ids == corpus.tokenizer.eos_id) + 1)
    return [corpus.tokenizer.decode(piece) for piece in pieces if len(piece)]


def test_documents_that_are_too_long_are_cut_dropped_or_refused(corpus_file: Path) -> None:
    with corpus_file.open("a") as file:
        file.write(json.dumps({"text": " ".join(map(str, range(2000))), "repo": "r"}) + "\n")
    asked: dict[str, Any] = {"sample": "document", "seq_len": 200, "validation": "none"}
    cut, dropped = (prepare(recipe_of(corpus_file, **asked, too_long=each)) for each in ("cut", "drop"))
    assert (len(cut.train), cut.train.spans.truncated) == (41, 1)
    assert (len(dropped.train), dropped.train.spans.truncated, dropped.summary["train"]["dropped"]) == (
        40,
        0,
        1,
    )
    assert "dropped" not in cut.summary["train"] and cut.fingerprint != dropped.fingerprint
    with pytest.raises(InputError, match=r"1 of 41 documents of data.train .* train.seq_len 200 "):
        prepare(recipe_of(corpus_file, **asked, too_long="refuse"))
    with pytest.raises(InputError, match=r"all 41 documents of data.train .* train.seq_len 2 "):
        prepare(recipe_of(corpus_file, **asked | {"seq_len": 2}, too_long="drop"))


def test_every_document_comes_back_from_one_of_the_splits(corpus_file: Path) -> None:
    corpus = prepare(recipe_of(corpus_file, validation_ratio=0.1))
    train, held = texts(corpus.train, corpus), texts(corpus.validation, corpus)
    expected = [json.loads(line)["text"] for line in corpus_file.read_text().splitlines()][:40]
    assert len(held) == 4 and sorted(train + held) == sorted(expected)
    source = corpus.summary["sources"][0]
    assert (source["documents"], source["blank"], source["bytes"]) == (40, 1, sum(map(len, expected)))
    assert source["found"] == "41 rows of JSONL, field text"
    assert corpus.train.spans.bytes == sum(map(len, train))
    assert corpus.summary["overlap"] == 0 and corpus.summary["unknown_ratio"] == 0
    assert corpus.train.spans.tokens.dtype == np.uint16


def test_a_group_is_held_out_as_a_whole(corpus_file: Path) -> None:
    corpus = prepare(recipe_of(corpus_file, validation_ratio=0.1, group_by="repo"))
    numbers = {int(text.split("(")[0][5:]) for text in texts(corpus.validation, corpus)}
    groups = {number % 7 for number in numbers}
    assert numbers == {number for number in range(40) if number % 7 in groups} and len(groups) == 1


def test_texts_that_differ_in_white_space_are_held_out_together(tmp_path: Path) -> None:
    rows = [f"def f{index}(x):\n    return x + {index}\n" for index in range(43)]
    rows += [row.replace("\n    ", "\n\t") for row in rows[:20]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    corpus = prepare(recipe_of(tmp_path / "a.jsonl", validation_ratio=0.3))
    train, held = (
        {" ".join(text.split()) for text in texts(each, corpus)} for each in (corpus.train, corpus.validation)
    )
    assert not train & held and len(train | held) == 43


@pytest.mark.parametrize("objective", ["causal", "seq2seq"])
def test_rows_with_the_same_prompt_are_held_out_together(tmp_path: Path, objective: str) -> None:
    rows = [
        {"prompt": f"Question {index}?", "completion": f"{answer} {index}"}
        for index in range(50)
        for answer in "ab"
    ]
    rows += [{**row, "completion": "c"} for row in rows[:4:2]]
    for name, some in (("a", rows[:100]), ("held", rows[100:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    source = {"field": "prompt", "target": "completion"} if objective == "seq2seq" else {}
    kind = {"model.kind": "encoder-decoder"} if objective == "seq2seq" else {}
    recipe = with_changes(
        recipe_of(tmp_path / "a.jsonl", validation_ratio=0.2, seq_len=64),
        {"train.objective": objective, "data.train": [{"path": str(tmp_path / "a.jsonl"), **source}], **kind},
    )
    corpus = prepare(recipe)
    uses = corpus.uses.reshape(50, 2)
    assert (uses[:, 0] == uses[:, 1]).all() and uses.sum() == 20 and corpus.summary["overlap"] == 0
    held_out = {
        "data.validation": [{"path": str(tmp_path / "held.jsonl"), **source}],
        "data.leakage.action": "report",
    }
    assert prepare(with_changes(recipe, held_out)).summary["overlap"] == 2


def test_the_second_time_no_text_is_read(corpus_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(corpus_file)
    first = prepare(recipe)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("read again")

    for module, name in ((tally, "read_documents"), (prepared, "train_tokenizer")):
        monkeypatch.setattr(module, name, refuse)
    second = prepare(recipe)
    other = prepare(recipe_of(corpus_file, seq_len=8, sample="document"))
    assert second.fingerprint == first.fingerprint
    assert not first.summary["cached"] and second.summary["cached"] and other.summary["cached"]
    with pytest.raises(AssertionError, match="read again"):
        prepare(recipe, again=True)


def test_a_cached_start_does_not_import_the_tokenizer_library(corpus_file: Path) -> None:
    prepare(recipe_of(corpus_file))
    program = (
        "import sys; from pathlib import Path; from tests.data.test_prepared import recipe_of; "
        "from etude.data.prepared import prepare\n"
        f"assert prepare(recipe_of(Path({str(corpus_file)!r}))).summary['cached']\n"
        "print('tokenizers' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout == b"False False\n"


def test_the_fingerprint_follows_content_and_not_file_times(corpus_file: Path, built: Path) -> None:
    recipe = recipe_of(corpus_file)
    first = prepare(recipe)
    os.utime(corpus_file, ns=(1, 1))
    touched = prepare(recipe)
    assert touched.fingerprint == first.fingerprint and not touched.summary["cached"]
    moved = corpus_file.rename(corpus_file.with_name("moved.jsonl"))
    assert prepare(recipe_of(moved)).fingerprint == first.fingerprint
    moved.write_text(moved.read_text().replace("f39", "g39"))
    assert prepare(recipe_of(moved)).fingerprint != first.fingerprint
    assert prepare(recipe_of(moved, validation="none")).fingerprint != first.fingerprint


def test_the_tokenizer_learns_from_the_training_documents_only(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"{word * 9} " * 9}) + "\n" for word in ("aq", "br", "cs", "dt"))
    )
    corpus = prepare(recipe_of(file, tokenizer={"train_vocab_size": 400}))
    held = texts(corpus.validation, corpus)[0]
    assert len(corpus.tokenizer.encode(held)) == len(held.encode())  # nothing was learnt from it
    assert all(len(corpus.tokenizer.encode(text)) < len(text) / 2 for text in texts(corpus.train, corpus))


def test_one_long_document_is_split_by_position(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {index} of a long text\n" for index in range(200)))
    corpus = prepare(recipe_of(tmp_path / "a.txt", validation_ratio=0.1))
    assert corpus.validation is not None
    whole = (tmp_path / "a.txt").read_text()
    train, held = texts(corpus.train, corpus), texts(corpus.validation, corpus)
    assert train[0] + held[0] == whole
    total = corpus.summary["sources"][0]["tokens"] - 1
    assert corpus.validation.spans.targets - 1 == -(-total // 10)
    assert corpus.train.spans.bytes + corpus.validation.spans.bytes == len(whole)
    labels = [batch.labels[batch.labels >= 0] for batch in iterate_once(corpus.validation, 4, True)]
    assert sum(map(len, labels)) == corpus.validation.spans.targets


def test_a_long_document_beside_others_is_cut_and_they_are_not(corpus_file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 500)
    corpus = prepare(recipe_of(corpus_file, tmp_path / "a.txt", validation_ratio=0.1))
    held, train = texts(corpus.validation, corpus), texts(corpus.train, corpus)
    assert len(held) == 5 and len(train) == 37  # 4 of 40 rows, and the end of the text
    assert train[-1] + held[-1] == "word " * 500


def test_an_instruction_that_most_rows_share_holds_nothing_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "Add 3" if n % 4 else f"Add {n}", "output": f"{n} " * 9} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = prepare(recipe_of(path, validation_ratio=0.2, seq_len=64))
    assert (
        len(corpus.train.spans.starts)
        and corpus.validation is not None
        and 6 <= corpus.validation.spans.documents <= 10
    )


def test_validation_sources_of_their_own_are_used_whole_and_overlap_is_counted(
    corpus_file: Path, tmp_path: Path
) -> None:
    rows = [*corpus_file.read_text().splitlines()[:2], '{"text": "new", "repo": "r1"}']
    (tmp_path / "held.jsonl").write_text("\n".join(rows))
    validation = [{"path": str(tmp_path / "held.jsonl")}]
    corpus = prepare(recipe_of(corpus_file, validation=validation, leakage={"action": "report"}))
    assert len(texts(corpus.train, corpus)) == 40 and len(texts(corpus.validation, corpus)) == 3
    assert corpus.summary["overlap"] == 2
    assert [source["use"] for source in corpus.summary["sources"]] == ["train", "validation"]
    assert prepare(recipe_of(corpus_file, validation="none")).validation is None


def test_a_group_in_several_sets_is_refused_or_reported(tmp_path: Path, corpus_file: Path) -> None:
    (tmp_path / "held.jsonl").write_text(
        '{"text": "new", "repo": "r1"}\n{"text": "other", "repo": "of its own"}\n'
    )
    held = {"path": str(tmp_path / "held.jsonl")}
    for use in ("validation", "test"):
        asked = {"group_by": "repo", use: [{**held, "group_by": "repo"}], "leakage": {"action": "report"}}
        assert prepare(recipe_of(corpus_file, **asked)).summary["shared_groups"] == 1
        with pytest.raises(InputError, match=r'1 group is in more than one of .*\(repo="r1"\); .* "report"'):
            prepare(recipe_of(corpus_file, **asked | {"leakage": {"action": "drop"}}))
    alone = prepare(recipe_of(corpus_file, group_by="repo", validation=[held]))
    assert "shared_groups" not in alone.summary
    half = {"path": str(tmp_path), "glob": "h*"}, {"path": str(tmp_path), "glob": "c*"}
    both = with_changes(recipe_of(corpus_file), {"data.train": [half[0]], "data.validation": [half[1]]})
    assert (
        "shared_groups" not in prepare(both).summary
    )  # files of one folder are no groups that anybody named


@pytest.mark.parametrize("count", [2, 5, 8])
def test_few_documents_are_enough(tmp_path: Path, count: int) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "text {index}"}}\n' for index in range(count)))
    corpus = prepare(recipe_of(tmp_path / "a.jsonl", sample="document"))
    assert len(corpus.train) == count - 1 and corpus.validation is not None and len(corpus.validation) == 1


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ('{"text": "same"}\n' * 5, {}, "5 documents can be held out"),
        ('{"text": "a", "r": 1}\n{"text": "b", "r": 1}\n', {"group_by": "r"}, "share a group"),
        ('{"text": "a"}\n', {}, "too few"),
        ('{"text": "a"}\n{"text": "b"\n', {}, ":2 is not valid JSON"),
        ('{"text": " "}\n', {}, "empty"),
    ],
)
def test_data_that_cannot_be_used_is_refused_and_nothing_is_left(
    tmp_path: Path, built: Path, content: str, settings: dict[str, Any], expected: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    recipe = recipe_of(tmp_path / "a.jsonl", **settings)
    for _ in range(2):
        with pytest.raises(InputError, match=expected) as caught:
            prepare(recipe)
        assert "\n" not in str(caught.value)
        assert not list(built.glob("*.tmp")) and not list(built.glob("*.lock"))


def test_a_tokenizer_larger_than_the_embedding_is_refused_before_and_after(
    corpus_file: Path, built: Path
) -> None:
    for name, content in train_tokenizer(["some text"], 300).files().items():
        (corpus_file.parent / name).write_bytes(content)
    tokenizer = {"from": str(corpus_file.parent / "tokenizer.json")}
    for _ in range(2):
        with pytest.raises(InputError, match=r"model\.vocab_size is 100"):
            prepare(recipe_of(corpus_file, tokenizer=tokenizer, model={"vocab_size": 100}))
        prepare(recipe_of(corpus_file, tokenizer=tokenizer))


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_files_are_named_and_built_again_on_request(
    corpus_file: Path, built: Path, name: str, damage: str
) -> None:
    recipe = recipe_of(corpus_file)
    first = prepare(recipe)
    file = Path(first.summary["folder"]) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-2])
    if (name, damage) == ("manifest.json", "remove"):  # then it was never finished
        assert prepare(recipe).fingerprint == first.fingerprint
        return
    with pytest.raises(InputError, match=f"is damaged: {name} .*--again") as caught:
        prepare(recipe)
    assert "\n" not in str(caught.value)
    assert prepare(recipe, again=True).fingerprint == first.fingerprint == prepare(recipe).fingerprint


def test_a_full_disk_is_named_and_leaves_nothing(corpus_file: Path, built: Path) -> None:
    recipe = recipe_of(corpus_file)
    with durable.faults(durable.FaultPlan(at=8, error=28)), pytest.raises(StorageError, match="disk is full"):
        prepare(recipe)
    assert not list(built.iterdir())
    assert len(prepare(recipe).train)


def test_two_processes_build_once_and_both_go_on(corpus_file: Path, built: Path) -> None:
    program = (
        "from pathlib import Path; from tests.data.test_prepared import recipe_of; "
        "from etude.data.prepared import prepare\n"
        f"corpus = prepare(recipe_of(Path({str(corpus_file)!r})))\n"
        "print(corpus.fingerprint, len(corpus.train))"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    outputs = {run.communicate()[0] for run in runs}
    assert len(outputs) == 1 and all(run.returncode == 0 for run in runs)
    assert len(list(built.iterdir())) == 1


def test_what_a_killed_builder_left_is_removed(corpus_file: Path, tmp_path: Path, built: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests.data.test_prepared import recipe_of\n"
        "from etude.data import prepared\n"
        "prepared.token_bytes = lambda _: time.sleep(600)\n"
        f"prepared.prepare(recipe_of(Path({str(corpus_file)!r})))"
    )
    builder = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    while not list(built.glob("*.tmp/tokens.bin")):  # ends with the builder at the latest
        assert builder.poll() is None
        time.sleep(0.02)
    (tmp_path / "other.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    prepare(recipe_of(tmp_path / "other.jsonl"))
    assert list(built.glob("*.tmp"))  # its builder is alive
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    prepare(recipe_of(tmp_path / "other.jsonl"), again=True)
    assert not list(built.glob("*.tmp")) and not list(built.glob("*.lock"))


def test_a_source_that_changes_while_it_is_read_is_refused(
    corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = prepared.train_tokenizer

    def train_and_change(*given: Any, **named: Any) -> Any:
        tokenizer = train(*given, **named)
        corpus_file.write_text(corpus_file.read_text().replace("f39", "g39"))
        return tokenizer

    monkeypatch.setattr(prepared, "train_tokenizer", train_and_change)
    with pytest.raises(InputError, match="changed while it was read"):
        prepare(recipe_of(corpus_file))


def test_a_large_vocabulary_takes_four_bytes_a_token(corpus_file: Path, tmp_path: Path) -> None:
    content = json.loads(train_tokenizer(["some text"], 300).to_json())
    content["model"]["vocab"]["far"] = 70_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    corpus = prepare(recipe_of(corpus_file, tokenizer={"from": str(tmp_path / "tokenizer.json")}))
    assert corpus.train.spans.tokens.dtype == np.uint32 and corpus.tokenizer.vocab_size == 70_001
