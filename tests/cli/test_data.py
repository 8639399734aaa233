"""What is trained on can be looked at: each token is scored or not, and nothing is lost in between."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.cli.data import print_samples, show_samples
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests.bases import write_encoder, write_instructions, write_labelled, write_qwen2
from tests.recipes import classification


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("data") / "qwen2")


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    return recipe_from(
        {
            "name": "x",
            "model": {"from": str(base)},
            "data": {
                "train": [{"path": str(write_instructions(tmp_path / "a.jsonl"))}],
                "validation": "none",
            },
            "train": {"steps": 2, "global_batch_size": 2},
        }
    )


def test_scored_tokens_are_between_brackets_where_there_is_no_colour(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    print_samples(show_samples(recipe, 2))
    out = capsys.readouterr().out
    assert out.count("--- sample") == 2 and "\x1b" not in out
    expected = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n[[{row['output']}<|im_end|>]]\n"
    assert expected in out


def test_on_a_terminal_they_differ_in_colour(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = show_samples(recipe, 1)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_samples(rows)
    out = capsys.readouterr().out
    assert "\x1b[2m" in out and "\x1b[1;32m" in out and "[[" not in out
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):  # where colours do not show, brackets do
        monkeypatch.setenv(name, value)
        print_samples(rows)
        assert "[[" in capsys.readouterr().out
        monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_parts_are_the_whole_sample(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    print_samples(show_samples(recipe, 3), as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["sample"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert [part["scored"] for part in row["parts"]] == [False, True] and 0 < row["scored"] < row[
            "tokens"
        ]
        assert row["parts"][1]["text"].endswith("<|im_end|>")


@pytest.mark.parametrize("multi", [True, False])
def test_a_sample_of_a_classifier_is_shown_with_its_labels(
    multi: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 30, multi=multi)
    samples = show_samples(
        classification(rows, None, {"data.validation": "none", "evaluate.metric": "loss"}), 30
    )
    given = [json.loads(line)["label"] for line in rows.read_text().splitlines()]
    wanted = [sorted(map(str, each)) if multi else [str(each)] for each in given]
    assert [sorted(sample["labels"]) for sample in samples] == wanted
    print_samples(samples)
    shown = capsys.readouterr().out
    assert ("scored" not in shown and f"label {samples[0]['labels'][0]}\n" in shown) or multi


def test_a_character_that_is_cut_in_two_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é日" * 300)
    sections = {"data": {"train": [{"path": str(tmp_path / "a.txt")}], "validation": "none"}}
    train = {"steps": 2, "global_batch_size": 2, "seq_len": 9}
    model = {"n_layer": 1, "n_head": 1, "n_embd": 8}
    for row in show_samples(
        recipe_from(
            {"name": "x", "model": model, "tokenizer": {"train_vocab_size": 257}, **sections, "train": train}
        ),
        9,
    ):
        text = "".join(part["text"] for part in row["parts"])
        assert set(text.removeprefix("<|endoftext|>").strip("\ufffd")) == {"é", "日"}


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_samples(
        [{"sample": 0, "tokens": 1, "scored": 1, "parts": [{"text": "a\x1b[31m[bold]b", "scored": True}]}]
    )
    assert "[[a\\x1b[31m[bold]b]]" in capsys.readouterr().out


def page_recipe(folder: Path, held_out: int) -> Path:
    """Twenty rows with a copy and a key among them, and a held-out file that has some of them."""
    texts = [f"def f{index}(x):\n    return x * {index} + total_{index}\n" for index in range(20)]
    texts += [texts[3].replace("\n", "\n\n"), f'api_key = "{SECRET}"\n']
    for name, some in (
        ("rows", texts),
        ("held", [*texts[:held_out], *(f"new text {i} of {i * 7}" for i in range(20))]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    (folder / "r.toml").write_text(
        'name = "x"\n[tokenizer]\ntrain_vocab_size = 300\n[data]\ndeduplicate = "exact"\nclean = {secret = '
        '"drop"}\nvalidation = [{path = "held.jsonl"}]\n[[data.train]]\npath = "rows.jsonl"\n'
        "[train]\nsteps = 2\nglobal_batch_size = 2\nseq_len = 32\n"
    )
    return folder / "r.toml"


SECRET = "k9Xf27QzLw83VbTn51RyHs64"


def test_the_page_is_printed_and_written_and_shows_no_secret(
    tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = etude("data", page_recipe(tmp_path, 1))
    written = (tmp_path / "x-data.md").read_text()
    assert code == 0 and written.startswith("# Data of x\n") and "| --- |" in written
    for text in (out, written):
        assert "rows.jsonl:21 repeats rows.jsonl:4 (1.00)" in text and "held.jsonl:1 = rows.jsonl:1" in text
        assert "<redacted" in text and SECRET not in text
    page = json.loads(etude("data", tmp_path / "r.toml", "--json", "--out", tmp_path / "y.md").out)
    assert page["removed"] == [
        {"use": "train", "reason": "secret", "documents": 1, "share": 1 / 22},
        {"use": "train", "reason": "exact duplicate", "documents": 1, "share": 1 / 22},
    ]


def test_the_page_is_printed_for_a_terminal_without_markdown_and_without_empty_columns(
    tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = etude("data", page_recipe(tmp_path, 1)).out
    assert "|" not in out.split("First sample")[0] and "`" not in out and "–" not in out and "[]" not in out
    lines = [line.rstrip() for line in out.splitlines()]
    assert "removed" in lines and "  found      22 rows of JSONL, field text" in lines
    assert [line.split() for line in lines if line.startswith("train")][1] == [
        "train",
        "secret",
        "1",
        "4.5",
        "%",
    ]


def test_prepared_data_are_told_in_words_and_as_keys_for_scripts(
    tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = page_recipe(tmp_path, 1)
    lines = [line.split() for line in etude("prepare", recipe).out.splitlines()]
    page = [line.split() for line in etude("data", recipe).out.splitlines()]
    values = json.loads(etude("prepare", recipe, "--json").out)
    assert lines[0] == ["Data", "of", "x"] and ["documents", str(values["train"]["documents"])] in lines
    assert ["bytes", "per", "token", f"{values['bytes_per_token']:.4f}"] in lines
    assert all(line in page for line in lines if line and line[0] not in ("read", "seconds", "documents"))
    assert not [word for line in lines for word in line[:1] if "_" in word or ".0." in word]


def test_the_page_of_data_that_is_refused_says_so_and_ends_with_2(
    tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = etude("data", page_recipe(tmp_path, 5))
    assert code == 2 and "Refused: data.validation leaks: 5 of 25" in out
    assert "error: data.validation leaks: 5 of 25 documents (20.0%)" in err


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_samples_show_no_secret_of_a_row_that_stays(
    objective: str, tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = json.dumps({"text": f'api_key = "{SECRET}"'})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 2)
    kind = "encoder" if objective == "masked" else "decoder"
    (tmp_path / "r.toml").write_text(
        f'name = "x"\n[model]\nkind = "{kind}"\n[tokenizer]\ntrain_vocab_size = 300\n[data]\nvalidation = '
        '"none"\nclean = {secret = "warn"}\n[[data.train]]\npath = "rows.jsonl"\n'
        f'[train]\nobjective = "{objective}"\nsteps = 2\nglobal_batch_size = 2\nseq_len = 64\n'
    )
    for words in ([], ["show"], ["show", "--json"]):
        done = etude("data", *words, "r.toml")
        assert done.code == 0 and SECRET not in done.out and SECRET not in done.err
        assert "<redacted: assigned secret>" in done.out and SECRET[-6:] not in done.out
    assert SECRET not in (tmp_path / "x-data.md").read_text()


def test_of_several_tasks_each_has_its_page_and_samples(
    tmp_path: Path, etude: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_encoder(tmp_path / "base", masked=True)
    write_labelled(tmp_path / "kinds.jsonl", 20)
    write_labelled(tmp_path / "text.jsonl", 30)
    (tmp_path / "r.toml").write_text(
        'name = "x"\n[model]\nfrom = "./base"\n[data]\nvalidation = "none"\nsample = "document"\n'
        '[[data.train]]\npath = "kinds.jsonl"\nlabel = "label"\ntask = "kinds"\n'
        '[[data.train]]\npath = "text.jsonl"\ntask = "words"\n'
        '[tasks.kinds]\nobjective = "classification"\n[tasks.words]\nobjective = "masked"\n'
        "[train]\nsteps = 2\nglobal_batch_size = 2\nseq_len = 24\n"
    )
    shown = json.loads(etude("data", "show", "r.toml", "--rows", "2", "--json").out)
    assert [(row["task"], row["sample"]) for row in shown] == [
        ("kinds", 0),
        ("kinds", 1),
        ("words", 0),
        ("words", 1),
    ]
    assert [bool(row["scored"]) for row in shown] == [False, False, True, True]
    assert "--- words, sample 0" in etude("data", "show", "r.toml").out
    summaries = json.loads(etude("prepare", "r.toml", "--json").out)
    assert [summaries[task]["train"]["documents"] for task in ("kinds", "words")] == [20, 30]
    page = etude("data", "r.toml").out
    assert "Data of x, task kinds" in page and "Data of x, task words" in page
    assert list(json.loads(etude("data", "r.toml", "--json").out)) == ["kinds", "words"]
    copies = (
        'validation = [{path = "kinds.jsonl", label = "label", task = "kinds"}, {path = "r.txt", task = '
        '"words"}]'
    )
    (tmp_path / "r.txt").write_text("nothing of the others")
    (tmp_path / "r.toml").write_text((tmp_path / "r.toml").read_text().replace('validation = "none"', copies))
    code, page, err = etude("data", "r.toml")
    assert (
        code == 2
        and "error: task kinds: data.validation leaks: 20 of 20" in err
        and err.count("error: ") == 1
    )
    assert "Refused: data.validation leaks" in page and "Data of x, task words" in page
