"""Forecasts of runs held against what the runs then took, and the next forecast corrected by them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.records.events import Forecast
from etude.records.store import Run, read_runs
from etude.report.summary import Summary, summarize
from etude.report.wording import NOTHING, duration, size
from etude.text import plural

_KINDS = {"before": "estimate", "after": "forecast"}  # of figures of a summary
_MADE = {"before": "before it", "after": "by its first steps"}
_FEWEST = 3  # runs of which a median says something


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A finished run with a forecast of it and what it took.

    made        "before" its first step, or "after" its first steps
    conditions  machine, device and kind of training: forecasts of runs under others are no guide
    errors      forecast over measured less 1, of time, memory and disk; None where one is not known
    """

    run: str
    made: str
    conditions: tuple[str, str, str]
    forecast: dict[str, float]
    measured: dict[str, float | None]
    errors: dict[str, float | None]

    @staticmethod
    def of(run: Run, summary: Summary, made: str = "after") -> "Grade | None":
        """The grade of a run; None if it is damaged, took several attempts, or its time is not sure."""
        kind = _KINDS[made]
        is_whole = summary["status"] == "finished" and summary["attempts"] == 1 and not summary["clock_jumps"]
        if not is_whole or summary["damaged_lines"] or summary[f"{kind}_seconds"] is None:
            return None
        said = {name: summary[f"{kind}_{name}"] for name in ("seconds", "memory_bytes", "disk_bytes")}
        measured = {
            "seconds": summary["wall_seconds"],
            "memory_bytes": summary["peak_gpu_memory_bytes"] or summary["peak_rss_bytes"],
            "disk_bytes": summary["disk_bytes"],
        }
        errors = {name: said[name] / took - 1 if (took := measured[name]) else None for name in said}
        return Grade(
            run=summary["name"],
            made=made,
            conditions=conditions(
                run.environment.get("machine") or {}, summary["device"], run.recipe.train.objective
            ),
            forecast=said,
            measured=measured,
            errors=errors,
        )


@dataclass(frozen=True)
class Correction:
    """The factors by which like runs took more or less than was forecast, and the number of these runs."""

    runs: int
    factors: dict[str, float]

    def apply(self, said: Forecast, least_seconds: float = 0.0) -> Forecast:
        """The forecast times the factors; one with measured seconds keeps at least these, and its memory."""
        least = 1.0 if least_seconds else 0.0
        seconds = max(said.seconds * self.factors.get("seconds", 1.0), least_seconds)
        share = seconds / max(said.seconds, 1e-9)
        return replace(
            said,
            seconds=round(seconds, 3),
            evaluation_seconds=round(share * said.evaluation_seconds, 3),
            checkpoint_seconds=round(share * said.checkpoint_seconds, 3),
            memory_bytes=round(said.memory_bytes * max(self.factors.get("memory_bytes", 1.0), least)),
            disk_bytes=round(said.disk_bytes * self.factors.get("disk_bytes", 1.0)),
            interval=[round(share * bound, 3) for bound in said.interval],
        )

    def __str__(self) -> str:
        each = [
            f"{name.partition('_')[0].replace('seconds', 'time')} x {factor:.2f}"
            for name, factor in self.factors.items()
            if abs(factor - 1) >= 0.005
        ]
        by = f"by the median error of {plural(self.runs, 'like run')}"
        return f"corrected {by}: {', '.join(each)}" if each else f"as it was {by}"


def conditions(machine: dict[str, Any], device: str | None, kind: str) -> tuple[str, str, str]:
    """The machine, device and kind of training of a run, by which forecasts compare."""
    gpus = ", ".join(str(each.get("name")) for each in machine.get("gpus") or [])
    return (f"{machine.get('cpu')} x {machine.get('cores')}; {gpus}", str(device), kind)


def grade_runs(folder: Path) -> tuple[list[Grade], dict[str, str]]:
    """The grades of the finished runs in a folder, and by name why the others have none, or one fewer.

    A run is graded once, however many copies of it there are.
    """
    whole, problems = read_runs(folder)
    grades, problems, known = [], dict(problems), dict[str, str]()
    for run in whole:
        try:
            identity = str(run.info["id"])
            if identity in known:
                problems[run.name] = f"it is a copy of {known[identity]}"
                continue
            summary = summarize(run)
            graded = [Grade.of(run, summary, made) for made in _KINDS]
        except EtudeError as error:
            problems[run.name] = str(error)
            continue
        if None in graded:
            problems[run.name] = _why_ungraded(summary)
        if found := [grade for grade in graded if grade is not None]:
            known[identity] = run.name
            grades += found
    return grades, problems


def _why_ungraded(summary: Summary) -> str:
    if summary["damaged_lines"]:
        return f"its journal is damaged in {plural(len(summary['damaged_lines']), 'line')}"
    if summary["status"] != "finished":
        return "it did not finish"
    if summary["attempts"] != 1:
        return "it took several attempts"
    if summary["clock_jumps"]:
        return "the clock jumped during it, so that its time is not sure"
    lacking = [_MADE[made] for made, kind in _KINDS.items() if summary[f"{kind}_seconds"] is None]
    return f"it has no forecast made {' or '.join(lacking)}"


def correction_of(grades: Sequence[Grade], like: tuple[str, str, str], made: str) -> Correction | None:
    """The correction by forecasts made alike of runs under the same conditions; None for fewer than three."""
    alike = [grade for grade in grades if grade.conditions == like and grade.made == made]
    if len(alike) < _FEWEST:
        return None
    factors = {}
    for name in ("seconds", "memory_bytes", "disk_bytes"):
        known = [1 / (1 + error) for each in alike if (error := each.errors[name]) is not None and error > -1]
        if known:
            factors[name] = round(statistics.median(known), 4)
    return Correction(len(alike), factors)


def grade_table(grades: Sequence[Grade]) -> list[list[str]]:
    """A table of runs, forecasts and signed errors for people, and the median errors in its last row."""
    rows = [
        [
            "run",
            "kind",
            "made",
            "time said",
            "took",
            "error",
            "memory said",
            "took",
            "error",
            "disk said",
            "took",
            "error",
        ]
    ]
    for grade in grades:
        cells = [grade.run, grade.conditions[2], _MADE[grade.made]]
        for name in grade.forecast:
            show = duration if name == "seconds" else size
            took = grade.measured[name]
            cells += [
                show(grade.forecast[name]),
                NOTHING if took is None else show(took),
                _signed(grade.errors[name]),
            ]
        rows.append(cells)
    for made in _KINDS:
        alike = [grade for grade in grades if grade.made == made]
        if len(alike) < 2:
            continue
        cells = ["median", "", _MADE[made]]
        for name in ("seconds", "memory_bytes", "disk_bytes"):
            known = [error for grade in alike if (error := grade.errors[name]) is not None]
            cells += ["", "", _signed(statistics.median(known) if known else None)]
        rows.append(cells)
    return rows


def _signed(error: float | None) -> str:
    return NOTHING if error is None else f"{100 * error:+.0f} %"
