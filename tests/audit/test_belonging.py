"""Labels and targets of other rows are told where validation shows that the words of rows tell them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from etude.audit.belonging import find_shuffled
from etude.plan import make_plan
from etude.recipe.load import change, recipe_from
from etude.records.events import Finding
from tests import recipes

Row = dict[str, Any]
KEPT = {"data.leakage": {"action": "report"}}


def pair(number: int) -> Row:
    draw = random.Random(number)
    names = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(4)]
    return {"instruction": f"Add {', '.join(names)}.", "output": f"return {' + '.join(names)}"}


def text(number: int) -> Row:
    words = ("loss model batch", "table row column")[number % 2].split()
    noise = random.Random(number).choices([f"w{place}" for place in range(90)], k=6)
    return {"text": " ".join([*noise, words[number % 3]]), "label": ("train", "query")[number % 2]}


def shuffled(rows: list[Row], name: str, share: float) -> list[Row]:
    draw = random.Random(1)
    chosen = [index for index in range(len(rows)) if draw.random() < share]
    given = [rows[index][name] for index in chosen]
    draw.shuffle(given)
    swapped = dict(zip(chosen, given))
    return [{**row, name: swapped.get(index, row[name])} for index, row in enumerate(rows)]


def found(folder: Path, kind: str, train: list[Row], held_out: list[Row] | None) -> list[Finding]:
    def write(name: str, rows: list[Row]) -> Path:
        path = folder / name
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
        return path

    path = write("train.jsonl", train)
    given = recipes.tiny(path, {"train.seq_len": 128})
    if kind == "text":
        given = recipes.classification(path).model_dump(by_alias=True, exclude_unset=True)
        given["data"]["train"] = [{"path": str(path), "label": "label"}]
    if held_out is not None:
        fields = {"label": "label"} if kind == "text" else {}
        given = change(
            given, {"data.validation": [{"path": str(write("held.jsonl", held_out)), **fields}], **KEPT}
        )
    (task,) = make_plan(recipe_from(given)).tasks
    return list(find_shuffled(task))


@pytest.mark.parametrize(("kind", "make", "name"), [("pair", pair, "output"), ("text", text, "label")])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_labels_of_other_rows_are_named(
    tmp_path: Path, kind: str, make: Any, name: str, share: float
) -> None:
    is_named = share == 1 or (share > 0 and kind == "pair")
    rows = [make(number) for number in range(600)]
    findings = found(tmp_path, kind, shuffled(rows[100:], name, share), rows[:100])
    assert [each.kind for each in findings] == ["labels_shuffled"] * is_named
    if is_named:
        assert "in 100 of validation" in findings[0].evidence


def test_rows_that_are_hard_on_both_sides_are_no_fault(tmp_path: Path) -> None:
    rows = shuffled([text(number) for number in range(600)], "label", 1)
    assert found(tmp_path, "text", rows[100:], rows[:100]) == []


def test_a_share_of_the_training_rows_tells_nothing_of_them(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(400)]
    assert found(tmp_path, "pair", shuffled(rows, "output", 1), None) == []
