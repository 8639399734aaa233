"""Forecasts are graded by what runs took, and correct the next ones of like runs alone."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.recipe.schema import Recipe
from etude.records.events import Forecast
from etude.records.journal import read_journal, write_journal
from etude.records.store import open_run
from etude.report.grades import Correction, Grade, correction_of, grade_runs, grade_table
from etude.report.summary import summarize
from etude.run import run_recipe
from etude.start import Options

Make = Callable[..., Recipe]
SAID = {"step": 0, "seconds": 1.0, "evaluation_seconds": 0.5, "memory_bytes": 9, "disk_bytes": 9}
HERE = ("a CPU", "cpu", "causal")


def graded(name: str, error: float, conditions: tuple[str, str, str] = HERE) -> Grade:
    said = {"seconds": 10.0 * (1 + error), "memory_bytes": 1e9, "disk_bytes": 1e6}
    took: dict[str, float | None] = {"seconds": 10.0, "memory_bytes": 1e9, "disk_bytes": 2e6}
    errors: dict[str, float | None] = {"seconds": error, "memory_bytes": 0.0, "disk_bytes": -0.5}
    return Grade(run=name, made="after", conditions=conditions, forecast=said, measured=took, errors=errors)


def test_a_run_has_the_errors_of_its_forecast(make_recipe: Make, tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    (before, grade), problems = grade_runs(tmp_path / "runs")
    summary = summarize(run)
    assert not problems and grade.run == run.name and grade.conditions[1:] == ("cpu", "causal")
    assert grade.errors["seconds"] == pytest.approx(summary["forecast_seconds"] / summary["wall_seconds"] - 1)
    assert grade.errors["disk_bytes"] == pytest.approx(
        summary["forecast_disk_bytes"] / summary["disk_bytes"] - 1
    )
    assert before.made == "before" and before.measured == grade.measured
    assert before.forecast["seconds"] == summary["estimate_seconds"] != grade.forecast["seconds"]
    table = grade_table([before, grade, before, grade])
    assert len({len(row) for row in table}) == 1 and [row[2] for row in table[-2:]] == [
        "before it",
        "by its first steps",
    ]


def test_damaged_runs_are_named_and_others_graded(make_recipe: Make, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    whole = run_recipe(make_recipe({"name": "whole"}), Options(runs=runs)).run
    shutil.copytree(whole.path, runs / "z-copy")

    def spoil(name: str, file: str, change: Callable[[bytes], bytes]) -> None:
        shutil.copytree(whole.path, runs / name)
        path = runs / name / file
        path.write_bytes(change(path.read_bytes()))

    for name, file in (("one", "run.json"), ("two", "resolved.toml"), ("three", "environment.json")):
        spoil(name, file, lambda text: b"{")
    spoil("cut", "journal.jsonl", lambda text: text[:-9])
    spoil("halved", "journal.jsonl", lambda text: text[: len(text) // 2])
    spoil("flipped", "journal.jsonl", lambda text: text.replace(b'"memory_bytes":', b'"memory_bytes":1', 1))
    none = [
        entry for entry in read_journal(whole.path / "journal.jsonl").all
        if not isinstance(entry.event, Forecast)
    ]  # fmt: skip
    spoil("none", "journal.jsonl", lambda text: b"")
    write_journal(runs / "none/journal.jsonl", none)
    for name, value in (("nan", {"seconds": math.nan}), ("huge", {"memory_bytes": 10**400})):
        odd = [none[0], none[-1]._replace(event=Forecast(**{**SAID, **value})), *none[1:]]  # type: ignore[arg-type]
        spoil(name, "journal.jsonl", lambda text: b"")
        write_journal(runs / name / "journal.jsonl", odd)
    grades, problems = grade_runs(runs)
    assert [grade.run for grade in grades] == [whole.name] * 2
    assert set(problems) == {path.name for path in runs.iterdir()} - {whole.name, ".lock"}
    assert problems["z-copy"] == f"it is a copy of {whole.name}"
    assert problems["cut"] == problems["halved"] == "it did not finish"
    assert problems["flipped"] == problems["nan"] == problems["huge"] == "its journal is damaged in 1 line"
    assert problems["none"] == "it has no forecast made before it or by its first steps"
    assert open_run(whole.name, runs)


def test_three_like_runs_correct_the_next_forecast() -> None:
    alike = [graded(f"run-{number}", error) for number, error in enumerate((-0.2, -0.5, 0.3))]
    others = [graded("other", -0.9, ("a CPU", "cuda", "causal"))] * 5
    assert correction_of(alike[:2] + others, HERE, "after") is None
    assert correction_of(alike + others, HERE, "before") is None
    found = correction_of(alike + others, HERE, "after")
    assert found == Correction(3, {"seconds": 1.25, "memory_bytes": 1.0, "disk_bytes": 2.0})
    assert str(found) == "corrected by the median error of 3 like runs: time x 1.25, disk x 2.00"
    said = Forecast(0, 100.0, 10.0, 5, 7, 2.0, [90.0, 110.0])
    made = found.apply(said)
    assert (made.seconds, made.interval, made.disk_bytes, made.memory_bytes) == (125.0, [112.5, 137.5], 14, 5)


def test_no_correction_goes_below_what_was_measured() -> None:
    said = Forecast(0, 100.0, 10.0, 5, 7, 2.0, [90.0, 110.0])
    made = Correction(9, {"seconds": 0.5, "memory_bytes": 0.5}).apply(said, 90.0)
    assert made.seconds == 90.0 and made.memory_bytes == 5
