"""Rows that differ by a number or a phrase are counted; rows of one form, with other values, are none."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from etude.audit.near import find_near_duplicates
from etude.plan import make_plan
from etude.recipe.load import change, recipe_from
from etude.records.events import Finding
from tests import bases, recipes

WORDS = "".join(chr(97 + place) for place in range(26))


def words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices(WORDS, k=5)) for _ in range(count))


def values(folder: Path, rows: list[Any], **keys: Any) -> dict[str, Any]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return recipes.tiny(path, {"train.seq_len": 128, "data.validation": "none", **keys})


def found(given: dict[str, Any]) -> list[Finding]:
    (task,) = make_plan(recipe_from(given)).tasks
    return list(find_near_duplicates(task))


@pytest.mark.parametrize("sample", ["document", "row"])
def test_texts_below_a_number_each_are_alike(tmp_path: Path, sample: str) -> None:
    draw = random.Random(1)
    few = [words(draw, 30) for _ in range(12)]
    rows = [{"text": f"part {place}: {few[place % 12]}"} for place in range(400)]
    given = values(tmp_path, rows, **{"data.sample": sample})
    (finding,) = found(given)
    assert (finding.kind, finding.severity) == ("duplicates", "warning")
    assert finding.changes == {"data.deduplicate": "near"} and "(97%)" in finding.evidence
    assert found(change(given, finding.changes)) == []


def test_reworded_questions_with_one_answer_are_alike(tmp_path: Path) -> None:
    draw = random.Random(2)
    few = [(words(draw, 8), words(draw, 60)) for _ in range(20)]
    rows = [
        {"instruction": f"{draw.choice(['Please', 'Now', 'Task:'])} {question} ({place})", "output": answer}
        for place, (question, answer) in enumerate(draw.choices(few, k=300))
    ]
    (finding,) = found(values(tmp_path, rows))
    assert finding.severity == "warning" and " rows " in finding.evidence


def test_a_few_are_a_remark_and_fewer_are_silent(tmp_path: Path) -> None:
    draw = random.Random(3)
    rows = [{"text": words(draw, 30)} for _ in range(300)]
    for count, severities in ((15, []), (45, ["info"]), (150, ["warning"])):
        copies = [{"text": f"again {draw.randrange(10**6)} {each['text']}"} for each in rows[:count]]
        given = values(tmp_path, [*rows, *copies], **{"data.sample": "document"})
        assert [each.severity for each in found(given)] == severities, count


def insert(draw: random.Random) -> str:
    table, number = draw.choice(["users", "orders"]), draw.randrange(10**6)
    line = "INSERT INTO {} (id, name, state) VALUES ({}, '{}', 'active');"
    return "\n".join(line.format(table, number + place, words(draw, 1)) for place in range(3))


def log(draw: random.Random) -> str:
    return "\n".join(
        f"10.0.{draw.randrange(256)}.{draw.randrange(256)} - [12/May/2026:10:{minute:02d}] "
        f'"GET /index HTTP/1.1" 200 {draw.randrange(9999)}'
        for minute in range(0, 12, 4)
    )


def week(draw: random.Random) -> str:
    days, day = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"), draw.randrange(4)
    number = draw.randrange(10**6)
    return f"Week {number}: what day comes after {days[day]}?\nThe day after is {days[day + 1]}."


@pytest.mark.parametrize("make", [insert, log, week])
def test_rows_of_one_form_are_not_alike(tmp_path: Path, make: Any) -> None:
    draw = random.Random(4)
    rows = [{"text": make(draw)} for _ in range(400)]
    assert found(values(tmp_path, rows, **{"data.sample": "document"})) == []


def test_labelled_rows_are_alike_with_one_label(tmp_path: Path) -> None:
    draw = random.Random(5)
    few = [words(draw, 30) for _ in range(10)]
    path = tmp_path / "labelled.jsonl"
    # Rows that are alike have one label, or each another.
    for rows_of_label, kinds in ((100, ["duplicates"]), (10, [])):
        rows = [
            {"text": f"no {place} {few[place % 10]}", "label": f"label {place // rows_of_label}"}
            for place in range(200)
        ]
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
        (task,) = make_plan(recipes.classification(path, changes={"train.seq_len": 256})).tasks
        assert [each.kind for each in find_near_duplicates(task)] == kinds


def test_rows_of_the_tests_are_silent(tmp_path: Path) -> None:
    for recipe in (
        recipes.classification(bases.write_labelled(tmp_path / "l.jsonl")),
        recipes.seq2seq(bases.write_pairs(tmp_path / "p.jsonl")),
    ):
        (task,) = make_plan(recipe).tasks
        assert list(find_near_duplicates(task)) == []
