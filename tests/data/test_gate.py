"""The data gate finds what was planted, and nothing else; checked against plain sets of tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from etude.data.gate import count_removed, enforce, examine
from etude.data.page import describe_gate
from etude.data.prepared import prepare
from etude.errors import InputError
from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from tests.data.planting import SHARED, functions, needs_shared, read, recipe_of, similarity, write


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


def test_all_rows_removed_is_refused_with_the_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(5))
    recipe = recipe_of(path, clean={"too_short": "drop", "min_characters": 10_000})
    with pytest.raises(InputError, match=r"all 5 documents of data.train are removed \(5 too_short\)"):
        prepare(recipe)


def test_a_source_says_how_many_rows_its_file_has_and_how_many_were_removed(tmp_path: Path) -> None:
    rows = functions(30)
    path = write(tmp_path / "rows.jsonl", [*rows, *rows, {"text": " "}])
    path.write_bytes(path.read_bytes() + b"\xff\n")
    recipe = recipe_of(path, deduplicate="exact", clean={"undecodable": "drop"})
    (source,) = prepare(recipe).summary["sources"]
    assert source["found"] == "62 rows of JSONL, field text"
    assert (source["documents"], source["blank"], source["removed"]) == (30, 1, 31)


def test_near_duplicates_across_a_split_by_ratio_are_told_on_the_page(tmp_path: Path) -> None:
    rows = functions(40)
    rows += [{"text": f"{row['text']} more"} for row in rows[:20]] + rows[5:9]
    recipe = recipe_of(write(tmp_path / "rows.jsonl", rows), validation_ratio=0.3)
    gate, corpus = examine(recipe), prepare(recipe)
    sides = [[row["text"] for row, use in zip(rows, corpus.uses) if use == number] for number in (0, 1)]
    leaking = [text for text in sides[1] if max(similarity(text, other) for other in sides[0]) >= 0.8]
    (told,) = describe_gate(gate, corpus.uses)["leaks"]
    assert told["documents"] == len(leaking) > 3
    assert told["of"] == "validation" and told["also_in"] == "train" and len(told["examples"]) == 3
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


def test_sources_may_have_relative_and_absolute_paths(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shared = '{"text": "def shared(value):\\n    return value * 2 + 17\\n"}\n'
    Path("train.jsonl").write_text(
        shared + '{"text": "def other(left, right):\\n    return left - right\\n"}\n'
    )
    Path("valid.jsonl").write_text(shared)
    sources = {
        "data.train": [{"path": "train.jsonl"}],
        "data.validation": [{"path": str(tmp_path / "valid.jsonl")}],
    }
    gate = examine(make_recipe(sources))
    ((held_out, first),) = gate.leaking("validation", "train").tolist()
    assert (gate.name(held_out), gate.name(first)) == ("valid.jsonl:1", "train.jsonl:1")
