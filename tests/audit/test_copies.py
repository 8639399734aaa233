"""Copies among training rows, and held-out rows among them, are told with figures; the changes take them away."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.audit.copies import find_contamination, find_duplicates
from etude.plan import make_plan
from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from tests import recipes

Row = dict[str, Any]


def row(number: int) -> Row:
    body = f"return x * {number * 7919 % 97} + {number} - len(str({number * 31}))"
    return {"instruction": f"Write function number {number}.", "output": f"def f_{number}(x):\n    {body}"}


def values(folder: Path, train: list[Row], held_out: list[Row] | None = None, **keys: Any) -> dict[str, Any]:
    def write(name: str, rows: list[Row]) -> str:
        path = folder / name
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
        return str(path)

    given = recipes.tiny(folder / "train.jsonl", {"train.seq_len": 128, **keys})
    write("train.jsonl", train)
    if held_out is None:
        return given
    sources = [{"path": write("held.jsonl", held_out)}]
    return change(given, {"data.validation": sources, "data.leakage": {"action": "report"}})


def found(recipe: Recipe) -> list[Finding]:
    (task,) = make_plan(recipe).tasks
    return [*find_contamination(task), *find_duplicates(task)]


def cured(given: dict[str, Any], finding: Finding) -> list[Finding]:
    return found(recipe_from(change(given, finding.changes)))


@pytest.mark.parametrize("copies", [5, 15, 100, 900])
def test_repeated_rows_are_counted_and_removed(tmp_path: Path, copies: int) -> None:
    rows = [row(number) for number in range(100)]
    given = values(
        tmp_path, rows + [rows[number % 10] for number in range(copies)], **{"data.validation": "none"}
    )
    if copies == 5:  # too few to matter
        assert found(recipe_from(given)) == []
        return
    (finding,) = found(recipe_from(given))
    assert (finding.kind, finding.severity) == ("duplicates", "warning")
    assert finding.evidence.startswith(f"{copies} of {100 + copies:,} rows ({copies / (100 + copies):.0%})")
    assert finding.changes == {"data.deduplicate": "exact"} and cured(given, finding) == []


@pytest.mark.parametrize("data", [{}, {"data.sample": "document"}])
def test_rows_that_only_begin_alike_are_no_copies(tmp_path: Path, data: Row) -> None:
    head = "# A licence that is longer than a sample.\n" * 30
    texts = [{"text": f"{head}{row(number)['output']}"} for number in range(40)]
    assert found(recipe_from(values(tmp_path, texts, **data))) == []


@pytest.mark.parametrize(("leaked", "severity"), [(1, "info"), (2, "info"), (3, "warning"), (40, "warning")])
def test_held_out_rows_in_training_are_counted_and_removed(
    tmp_path: Path, leaked: int, severity: str
) -> None:
    rows, held_out = [row(number) for number in range(100)], [row(number) for number in range(200, 240)]
    given = values(tmp_path, rows + held_out[:leaked], held_out)
    (finding,) = found(recipe_from(given))
    assert (finding.kind, finding.severity) == ("contamination", severity)
    assert finding.evidence.startswith(
        f"of 40 validation rows {leaked} ({leaked / 40:.1%}) are there word for word"
    )
    assert "held.jsonl:1 = train.jsonl:101" in finding.evidence
    assert finding.changes == {"data.leakage.action": "drop"} and cured(given, finding) == []


def test_rows_that_are_nearly_equal_are_told_and_no_alarm(tmp_path: Path) -> None:
    long = [
        {"instruction": f"Sum {n}.", "output": "\n".join(f"a{n * k} = b{k} * {n}" for k in range(40))}
        for n in range(30)
    ]
    near = [{**each, "output": each["output"] + "\n# the end"} for each in long]
    (finding,) = found(recipe_from(values(tmp_path, long, near)))
    assert (finding.kind, finding.severity) == ("contamination", "info")
    assert "0 (0.0%) are there word for word, 30 are nearly equal to some" in finding.evidence


def test_distinct_rows_hear_nothing(tmp_path: Path) -> None:
    rows = [row(number) for number in range(60)]
    assert found(recipe_from(values(tmp_path, rows[20:], rows[:20]))) == []
