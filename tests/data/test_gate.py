"""The data gate finds what was planted, and nothing else; checked against plain sets of tokens."""

import gzip
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.data import dedup
from etude.data import gate as gates
from etude.data.encode import batch_documents
from etude.data.gate import Gate, count_removed, enforce, examine
from etude.data.page import describe_gate
from etude.data.prepared import prepare
from etude.data.shingles import normalize
from etude.data.sources import Document
from etude.errors import InputError
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from tests.data.planting import plant

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data of the project is not beside it")
Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[Row]:
    data = path.read_bytes()
    return [
        json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    ]


def recipe_of(train: Path, **data: Any) -> Recipe:
    held_out = {
        name: [{"path": str(path)} for path in data.pop(name)]
        for name in ("validation", "test")
        if name in data
    }
    return recipe_from(
        {
            "name": "x",
            "tokenizer": {"train_vocab_size": 300},
            "data": {"train": [{"path": str(train)}], **held_out, **data},
            "train": {"steps": 2, "global_batch_size": 2, "seq_len": 64},
        }
    )


def shingles(text: str) -> set[tuple[str, ...]]:
    tokens = re.findall(r"[A-Za-z0-9_\x80-\U0010ffff]+|[!-~]", normalize(text))
    padded = tokens + [""] * (5 - len(tokens))
    return set(zip(*(padded[place:] for place in range(5))))


def similarity(first: str, second: str) -> float:
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def text_of(row: Row) -> str:
    return "\n".join(row[name] for name in ("instruction", "input", "output") if row[name])


@needs_shared
def test_planted_duplicates_are_found_and_no_others(tmp_path: Path) -> None:
    rows = read(SHARED / "codealpaca" / "codealpaca_new.jsonl")
    planted, copies = plant(rows, exact=0.15, near=0.05, seed=1)
    gate = examine(recipe_of(write(tmp_path / "rows.jsonl", planted), deduplicate="near"))
    found = {int(index): int(gate.same_as[index]) for index in np.flatnonzero(gate.same_as >= 0)}
    texts = [text_of(row) for row in planted]

    exact = [index for index, (_, kind) in copies.items() if kind == "exact"]
    assert len(exact) == round(0.15 * len(rows))
    assert all(" ".join(texts[index].split()) == " ".join(texts[found[index]].split()) for index in exact)

    near = [
        index
        for index, (original, kind) in copies.items()
        if kind != "exact" and similarity(texts[index], texts[original]) >= 0.8
    ]
    assert len(near) > 0.03 * len(rows)
    assert sum(index in found for index in near) >= 0.95 * len(near)

    right = sum(similarity(texts[index], texts[other]) >= 0.8 for index, other in found.items())
    assert right == len(found)  # precision of 100 %, above the 99 % that is promised
    near_ones = [index for index in found if gate.similarity[index] < 1]
    assert all(gate.same_as[found[index]] == -1 for index in near_ones)  # what is kept is no duplicate itself


@needs_shared
def test_leaks_are_found_to_the_row() -> None:
    folder = SHARED / "comment_types_python"
    recipe = recipe_of(
        folder / "train.jsonl",
        validation=[folder / "valid.jsonl"],
        test=[folder / "test.jsonl"],
        leakage={"action": "report"},
    )
    gate = examine(recipe)
    texts = {
        name: [" ".join(row["text"].split()) for row in read(folder / f"{name}.jsonl")]
        for name in ("train", "valid", "test")
    }
    starts = {"train": 0, "valid": len(texts["train"]), "test": len(texts["train"]) + len(texts["valid"])}
    for into, of, expected in (("test", "train", 47), ("valid", "train", 16), ("test", "valid", 14)):
        known = set(texts[of])
        rows = [starts[into] + index for index, text in enumerate(texts[into]) if text in known]
        uses = [{"valid": "validation"}.get(name, name) for name in (into, of)]
        pairs = gate.leaking(uses[0], uses[1])
        assert pairs[:, 0].tolist() == rows
        assert len(rows) == expected
        assert all(texts[into][a - starts[into]] == texts[of][b - starts[of]] for a, b in pairs.tolist())


@needs_shared
def test_a_held_out_set_that_leaks_is_refused_with_three_examples_or_cured() -> None:
    folder = SHARED / "comment_types_python"
    files = {"validation": [folder / "valid.jsonl"], "test": [folder / "test.jsonl"]}
    with pytest.raises(InputError, match=r"data.test leaks: 47 of 512 documents \(9\.2%\)") as caught:
        prepare(recipe_of(folder / "train.jsonl", **files, leakage={"max_ratio": 0.06}))
    assert str(caught.value).count("test.jsonl:") == 3
    cured = examine(recipe_of(folder / "train.jsonl", **files, leakage={"action": "drop"}))
    enforce(cured)
    assert len(cured.leaking("test", "train")) == len(cured.leaking("validation", "train")) == 0
    assert not cured.removed[cured.uses > 0].any()


@needs_shared
def test_planted_benchmark_solutions_are_found_and_clean_data_is_not_flagged(tmp_path: Path) -> None:
    human, mbpp = SHARED / "humaneval" / "HumanEval.jsonl.gz", SHARED / "mbpp" / "mbpp.jsonl"
    clean = read(SHARED / "codealpaca" / "codealpaca_new.jsonl") + read(
        SHARED / "codealpaca" / "codealpaca_2k.jsonl"
    )
    clean = [row for row in clean if row["output"].strip()]
    draw = random.Random(3)
    rows = [*clean]
    problems = {("human", row["task_id"]): row["prompt"] + row["canonical_solution"] for row in read(human)}
    problems |= {("mbpp", str(row["task_id"])): row["code"] for row in read(mbpp)}
    for code in problems.values():
        rows.append(
            {"instruction": "Write it.", "input": "", "output": f"# A function.\n{code}\nprint('done')\n"}
        )
    draw.shuffle(rows)
    gate = examine(
        recipe_of(write(tmp_path / "rows.jsonl", rows), leakage={"benchmarks": [str(human), str(mbpp)]})
    )
    names = gate.manifest["benchmarks"]
    found = {
        (("human", "mbpp")[bench], names[bench]["problems"][problem])
        for _, bench, problem in gate.planted.tolist()
    }
    assert found == set(problems)
    flagged = set(gate.planted[:, 0].tolist())
    is_planted = [row["instruction"] == "Write it." for row in rows]
    false = [index for index in flagged if not is_planted[index]]
    assert len(false) <= len(clean) / 1000


def functions(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    words = [f"name{number}" for number in range(50)]
    return [{"text": " ".join(draw.choices(words, k=draw.randint(8, 40)))} for _ in range(count)]


def test_which_document_stays_and_why_is_written_down(tmp_path: Path) -> None:
    rows = functions(30)
    rows += [{"text": rows[3]["text"].replace(" ", "  ")}, {"text": rows[4]["text"] + " more"}, {"text": "x"}]
    path = write(tmp_path / "rows.jsonl", rows)
    gate = examine(recipe_of(path, deduplicate="near", clean={"too_short": "drop", "min_characters": 5}))
    assert np.flatnonzero(gate.removed).tolist() == [30, 31, 32]
    assert gate.same_as[30:32].tolist() == [3, 4]
    assert gate.similarity[31] == pytest.approx(similarity(rows[4]["text"], rows[31]["text"]))
    assert count_removed(gate, 0) == {"too_short": 1, "exact duplicate": 1, "near-duplicate": 1}
    page = describe_gate(gate)
    assert page["filters"][0]["examples"][0].startswith("rows.jsonl:33: ")
    assert page["duplicates"][1]["examples"][0].startswith("rows.jsonl:32 repeats rows.jsonl:5")


def test_what_the_gate_removes_is_not_trained_on(tmp_path: Path) -> None:
    rows = functions(40)
    path = write(tmp_path / "rows.jsonl", [*rows, *rows])
    with_all, without = (prepare(recipe_of(path, deduplicate=mode)) for mode in ("off", "exact"))
    documents = [
        corpus.summary["train"]["documents"] + corpus.summary["validation"]["documents"]
        for corpus in (with_all, without)
    ]
    assert documents == [80, 40]
    assert without.summary["removed"] == [
        {"use": "train", "reason": "exact duplicate", "documents": 40, "share": 0.5}
    ]


def test_findings_are_made_once_and_again_when_the_data_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rows.jsonl", functions(20))
    recipe = recipe_of(path, deduplicate="near")
    first = examine(recipe)
    calls: list[int] = []
    real = gates._measure
    monkeypatch.setattr(gates, "_measure", lambda *given: calls.append(1) or real(*given))
    assert np.array_equal(examine(recipe).same_as, first.same_as) and not calls
    write(path, functions(21))
    assert len(examine(recipe).same_as) == 21 and calls


def same(first: Gate, second: Gate) -> bool:
    columns = ("failed", "same_as", "similarity", "leaks", "planted", "places")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in columns)


@pytest.fixture
def varied(tmp_path: Path) -> dict[str, Any]:
    """Rows with copies of all kinds, a held-out file that leaks, and a benchmark; several batches of them."""
    rows = functions(300)
    draw = random.Random(1)
    for _ in range(80):
        copy = draw.choice(rows)["text"]
        rows.append({"text": draw.choice([copy, copy.upper(), copy + " end", f"{copy} {copy}"])})
    problems = [{"task_id": f"p{index}", "code": rows[index]["text"]} for index in range(5)]
    return {
        "train": write(tmp_path / "rows.jsonl", rows),
        "validation": [write(tmp_path / "held.jsonl", [*rows[10:15], *functions(20, seed=9)])],
        "deduplicate": "near",
        "leakage": {"action": "report", "benchmarks": [str(write(tmp_path / "bench.jsonl", problems))]},
        "clean": {"too_short": "warn", "min_characters": 60},
    }


def test_all_cores_and_batches_of_any_size_give_the_same_rows(
    varied: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = examine(recipe_of(**varied))
    assert (whole.same_as >= 0).sum() > 30 and len(whole.leaks) and len(whole.planted) and whole.failed.any()
    monkeypatch.setattr(gates, "_BATCH_CHARACTERS", 5000)
    assert same(whole, examine(recipe_of(**varied), again=True))


def test_ray_gives_the_same_rows(varied: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    whole = examine(recipe_of(**varied))
    monkeypatch.setattr(gates, "_BATCH_CHARACTERS", 20_000)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert same(whole, examine(recipe_of(**varied, executor="ray"), again=True))
    finally:
        ray.shutdown()


def test_matching_agrees_with_comparing_all_pairs(tmp_path: Path) -> None:
    draw = random.Random(5)
    rows = functions(60)
    for _ in range(60):
        words = draw.choice(rows)["text"].split()
        for _ in range(draw.randint(0, 3)):
            words[draw.randrange(len(words))] = "other"
        rows.append({"text": " ".join(words)})
    gate = examine(recipe_of(write(tmp_path / "rows.jsonl", rows), deduplicate="near", near_threshold=0.6))
    sets = [shingles(row["text"]) for row in rows]
    kept: list[int] = []
    expected = []
    for index, mine in enumerate(sets):
        others = [other for other in kept if len(mine & sets[other]) >= 0.6 * len(mine | sets[other])]
        expected.append(bool(others))
        if not others:
            kept.append(index)
    assert (gate.same_as >= 0).tolist() == expected


@pytest.mark.parametrize("action", ["report", "drop"])
def test_leaks_agree_with_comparing_all_pairs(tmp_path: Path, action: str) -> None:
    draw = random.Random(6)
    sides: tuple[list[Row], list[Row]] = [], []
    for row in functions(60):
        words = row["text"].split()
        for side in (0, 0, 1, 1):
            changed = [draw.choice([word] * 20 + ["other"]) for word in words]
            sides[side].append({"text": " ".join(changed)})
    train, held = write(tmp_path / "rows.jsonl", sides[0]), [write(tmp_path / "held.jsonl", sides[1])]
    recipe = recipe_of(train, validation=held, near_threshold=0.6, leakage={"action": action})
    gate = examine(recipe)
    leaking = np.array(
        [[similarity(first["text"], second["text"]) >= 0.6 for second in sides[1]] for first in sides[0]]
    )
    assert 20 < leaking.any(axis=0).sum() < 120 and 20 < leaking.any(axis=1).sum() < 120
    if action == "drop":
        assert np.flatnonzero(gate.removed).tolist() == np.flatnonzero(leaking.any(axis=1)).tolist()
    else:
        found = gate.leaking("validation", "train")[:, 0] - len(sides[0])
        assert found.tolist() == np.flatnonzero(leaking.any(axis=0)).tolist()


def test_all_rows_removed_is_refused_with_the_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(5))
    recipe = recipe_of(path, clean={"too_short": "drop", "min_characters": 10_000})
    with pytest.raises(InputError, match=r"all 5 documents of data.train are removed \(5 too_short\)"):
        prepare(recipe)


def test_a_file_that_is_no_text_is_left_out_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in itertools.product("abcd", ["def f():\n    return 1\n"]):
        (folder / f"{name}.py").write_text(text + f"# {name} {name}\n" * 20)
    (folder / "image.py").write_bytes(b"\0\1\2")
    (folder / "latin.py").write_bytes("x = 'ä'".encode("latin-1"))
    with pytest.raises(InputError, match=r"image\.py is binary"):
        prepare(recipe_of(folder))
    corpus = prepare(recipe_of(folder, clean={"undecodable": "drop"}))
    assert sum(source["documents"] for source in corpus.summary["sources"]) == 4
    assert corpus.summary["filters"][0] | {"examples": []} == {
        "filter": "undecodable",
        "policy": "drop",
        "documents": 2,
        "examples": [],
    }


def test_a_line_that_is_no_text_is_left_out_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(30))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([b'{"text": "x \xe4"}\n', *lines, b"\xff\n"]))
    with pytest.raises(InputError, match=r"rows\.jsonl:1 is not UTF-8 text: byte 12 of the line"):
        prepare(recipe_of(path))
    corpus = prepare(recipe_of(path, clean={"undecodable": "drop"}))
    assert corpus.summary["sources"][0]["documents"] == 30
    (row,) = corpus.summary["filters"]
    assert row["documents"] == 2 and [Path(name).name for name in row["examples"]] == [
        "rows.jsonl:1",
        "rows.jsonl:32",
    ]


def test_a_source_says_how_many_rows_its_file_has_and_how_many_were_removed(tmp_path: Path) -> None:
    rows = functions(30)
    path = write(tmp_path / "rows.jsonl", [*rows, *rows, {"text": " "}])
    path.write_bytes(path.read_bytes() + b"\xff\n")
    recipe = recipe_of(path, deduplicate="exact", clean={"undecodable": "drop"})
    (source,) = prepare(recipe).summary["sources"]
    assert source["found"] == "62 rows of JSONL, field text"
    assert (source["documents"], source["blank"], source["removed"]) == (30, 1, 31)


def test_a_benchmark_says_how_many_of_its_problems_are_looked_for(tmp_path: Path) -> None:
    asked = (
        "Write a function that returns the largest of the numbers that it is given, or nothing where it is "
        "given none."
    )
    problems = [
        {"question": "Add.", "answer": "a + b"},
        {"question": asked, "answer": "max"},
        {"question": "Add two."},
    ]
    bench = write(tmp_path / "bench.jsonl", problems)
    gate = examine(
        recipe_of(write(tmp_path / "rows.jsonl", functions(20)), leakage={"benchmarks": [str(bench)]})
    )
    (row,) = describe_gate(gate)["benchmarks"]
    assert (row["problems"], row["looked_for"], row["found"]) == (3, 1, 0)


def test_near_duplicates_across_a_split_by_ratio_are_told_on_the_page(tmp_path: Path) -> None:
    rows = functions(40)
    rows += [{"text": f"{row['text']} more"} for row in rows[:20]] + rows[5:9]
    recipe = recipe_of(write(tmp_path / "rows.jsonl", rows), validation_ratio=0.3)
    gate, corpus = examine(recipe), prepare(recipe)
    sides = [[row["text"] for row, use in zip(rows, corpus.uses) if use == number] for number in (0, 1)]
    leaking = [text for text in sides[1] if max(similarity(text, other) for other in sides[0]) >= 0.8]
    (told,) = describe_gate(gate, corpus.uses)["leaks"]
    assert told["documents"] == len(leaking) > 3
    assert told["of"] == "validation" and told["also in"] == "train" and len(told["examples"]) == 3
    assert told["share"] == len(leaking) / len(sides[1])
    assert "leaks" not in describe_gate(gate)


def test_near_duplicates_across_a_split_by_ratio_are_told_beside_a_test_set_too(tmp_path: Path) -> None:
    rows = functions(40)
    path = write(tmp_path / "rows.jsonl", rows + [{"text": f"{row['text']} more"} for row in rows])
    told = {}
    for name, held_out in (
        ("without", {}),
        ("with", {"test": [write(tmp_path / "test.jsonl", functions(9, seed=9))]}),
    ):
        recipe = recipe_of(path, validation_ratio=0.3, **held_out)
        told[name] = describe_gate(examine(recipe), prepare(recipe).uses)["leaks"]
    assert told["without"][0]["documents"] > 3
    assert told["with"][0] == told["without"][0] and told["with"][1]["of"] == "test"
    assert prepare(recipe).summary["leaks"] == told["with"]  # a run records what the page says


def test_near_leaks_are_refused_or_left_out_as_the_page_says(tmp_path: Path) -> None:
    held = [write(tmp_path / "held.jsonl", functions(20))]
    copies = [{"text": f"{row['text']} tail"} for row in functions(20)]
    train = write(tmp_path / "rows.jsonl", [*copies, *copies[:5], *functions(40, seed=9)])
    with pytest.raises(InputError, match=r"data.validation leaks: 20 of 20 documents \(100\.0%\)"):
        prepare(recipe_of(train, validation=held))
    cured = prepare(recipe_of(train, validation=held, leakage={"action": "drop"}))
    assert cured.summary["train"]["documents"] == 40
    assert cured.summary["removed"] == [{"use": "train", "reason": "leak", "documents": 25, "share": 25 / 65}]
    told = prepare(recipe_of(train, validation=held, leakage={"action": "report"})).summary["leaks"]
    assert told[0]["documents"] == 20


def test_a_near_leak_into_a_duplicate_counts_as_long_as_that_is_trained_on(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(60)]
    first, second, third = (" ".join(words[start : start + 50]) for start in (0, 4, 8))
    assert similarity(first, second) >= 0.8 and similarity(second, third) >= 0.8 > similarity(first, third)
    train = write(tmp_path / "rows.jsonl", [{"text": first}, {"text": second}, {"text": second}])
    held = [write(tmp_path / "held.jsonl", [{"text": third}])]
    for deduplicate, pairs in (("off", [[3, 1]]), ("exact", [[3, 1]]), ("near", [])):
        gate = examine(recipe_of(train, validation=held, deduplicate=deduplicate))
        assert gate.leaking("validation", "train").tolist() == pairs
        dropped = examine(recipe_of(train, validation=held, leakage={"action": "drop"}))
        assert dropped.removed.tolist() == [False, True, True, False]


def test_templates_on_both_sides_are_compared_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        {"text": " ".join(["word"] * 5 + [f"the same {place}" for place in range(30)] + [f"end{i}"])}
        for i in range(80)
    ]
    train, held = write(tmp_path / "rows.jsonl", texts[:40]), [write(tmp_path / "held.jsonl", texts[40:])]
    calls: list[int] = []
    real = dedup.jaccard
    monkeypatch.setattr(dedup, "jaccard", lambda *given: calls.append(1) or real(*given))
    for action, leaking in (("report", 40), ("drop", 0)):
        calls.clear()
        gate = examine(recipe_of(train, validation=held, leakage={"action": action}))
        assert len(gate.leaks) == 40 and len(calls) <= 120
        assert len(gate.leaking("validation", "train")) == leaking


def test_texts_that_differ_in_comments_or_case_are_not_equal(tmp_path: Path) -> None:
    rows = functions(30)
    rows += [{"text": f"{rows[0]['text']}\n# a comment\n"}, {"text": rows[1]["text"].upper()}]
    gate = examine(recipe_of(write(tmp_path / "rows.jsonl", rows), deduplicate="exact"))
    assert gate.same_as[30:].tolist() == [0, 1] and not gate.removed.any()
    assert (gate.similarity[30:] < 1).all() and gate.similarity[30:].min() == pytest.approx(1)
    corpus = prepare(gate.recipe)
    assert [row["documents"] for row in corpus.summary["duplicates"]] == [0, 2]


def test_a_text_with_other_labels_is_no_duplicate_but_leaks(tmp_path: Path) -> None:
    texts = [row["text"] for row in functions(30)]
    rows = [{"text": text, "label": label} for label in "xy" for text in texts] + [
        {"text": texts[0], "label": "x"}
    ]
    rows += [{"text": f"{texts[1]} tail", "label": label} for label in "yz"]
    path, held = tmp_path / "rows.jsonl", tmp_path / "held.jsonl"
    write(path, rows)
    write(held, [{"text": texts[2], "label": "z"}])
    sources = {
        name: [{"path": str(file), "label": "label"}]
        for name, file in (("train", path), ("validation", held))
    }
    changes = {
        "data": {**sources, "deduplicate": "near", "leakage": {"action": "report"}},
        "model.kind": "encoder",
    }
    gate = examine(with_changes(recipe_of(path), {**changes, "train.objective": "classification"}))
    found = np.flatnonzero(gate.same_as >= 0)
    assert found.tolist() == [60, 61] and gate.same_as[found].tolist() == [0, 31]
    assert len(gate.leaking("validation", "train")) == 1


def test_batches_end_by_all_text_of_a_document() -> None:
    documents = [Document("a", None, "rows.jsonl", line, pair="b" * 100) for line in range(40)]
    assert [len(batch) for batch in batch_documents(iter(documents), 1000)] == [10] * 4


def test_a_benchmark_without_problems_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(5))
    bench = write(tmp_path / "bench.jsonl", [{"number": 1}])
    with pytest.raises(InputError, match=r"bench.jsonl:1 is no evaluation problem"):
        examine(recipe_of(path, leakage={"benchmarks": [str(bench)]}))
