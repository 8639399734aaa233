"""Rows of a log as the points of its runs: each at its step, without those that a restart made void."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, merge
from itertools import count, pairwise
from typing import Any

from etude.errors import InputError
from etude.text import one_line, plural, verb
from etude.watch.logs.rows import Columns, Row, choose
from etude.watch.point import Point

_LAST_STEP = 2**53
_MAY_BE_NAN = ("loss", "eval_loss", "grad_norm")
_FIELDS = (
    *_MAY_BE_NAN, "learning_rate", "loss_scale", "update_ratio", "seconds", "wait_seconds",
    "tokens_per_second",
)  # fmt: skip
_MOST_BACK = 4  # a log of so many rows a step back, or fewer, is in no order of training
Figures = dict[str, Any]
ROW = "row"  # the unit of steps where a log names none


@dataclass
class Run:
    """The points of one of the runs of a log.

    unit   of its steps: "step", "epoch", or "row" where the log names neither
    names  of the figures that were read, as the log has them, by field of `Point`
    facts  of the run, as `Facts` has them
    """

    name: str
    points: list[Point]
    unit: str
    names: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def runs_of(rows: Sequence[Row]) -> list[Run]:
    """The runs of a log, in the order of their first rows.

    Raises: InputError if the rows are no log of a training, or in no order of one.
    """
    columns = choose(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run, []).append(row)
    runs = [run for name, group in groups.items() for run in _runs_of_group(name, group, columns)]
    if not runs:
        raise InputError("the log has no figures at a step from 0 on; give a log of a training")
    return runs


def _runs_of_group(name: str, rows: Sequence[Row], columns: Columns) -> list[Run]:
    readings = _of_first_rank([_read(row, columns) for row in rows])
    unit = _unit(readings)
    if unit == ROW and len({key for row in rows for key in row.figures}) < 2:
        only = columns.names.get("loss", columns.names.get("eval_loss", ""))
        raise InputError(
            f"the log has one column, {one_line(only, 40)}; a step or an epoch was expected beside it"
        )
    notes: list[str] = []
    _set_steps(readings, unit, notes)
    return [_run(name, unit, part, columns, notes) for part in _Walk(notes).take(readings)]


def _read(row: Row, columns: Columns) -> Figures:
    figures: Figures = columns.read(row)
    figures["metrics"] = {
        columns.metrics[name]: value
        for name, value in row.figures.items()
        if name in columns.metrics and math.isfinite(value)
    }
    return figures


def _of_first_rank(readings: list[Figures]) -> list[Figures]:
    """The rows of the lowest rank where several ranks wrote into one log."""
    ranks = {each["rank"] for each in readings if "rank" in each}
    return [each for each in readings if each.get("rank", min(ranks)) == min(ranks)] if ranks else readings


def _unit(readings: Sequence[Figures]) -> str:
    """The name of what the rows count, if most of those with a loss have it and it is not always the same."""
    losses = [each for each in readings if "loss" in each or "eval_loss" in each]
    for unit in ("step", "epoch"):
        known = [each[unit] for each in losses if unit in each and math.isfinite(each[unit])]
        is_whole = unit == "step" or all(value == int(value) for value in known)
        are_own = len(set(known)) > len(known) / 4 if unit == "epoch" else len(set(known)) > 1
        if 2 * len(known) >= len(losses) and is_whole and (are_own or len(known) == 1):
            return unit
    return ROW


def _set_steps(readings: list[Figures], unit: str, notes: list[str]) -> None:
    """Give each reading a whole step; one without takes that of the row before."""
    _free_evaluations(readings, unit, notes)
    at = 0
    for each in readings:
        value = each.get(unit)
        if unit == ROW:
            at += "loss" in each
        elif value is not None and abs(value) < _LAST_STEP:
            at = round(value)
        each["step"] = at
    if unit == ROW:
        notes.append("the log names no steps, so its rows with a loss are counted")
    elif unit == "epoch":
        notes.append("the log has a row an epoch, so steps are epochs here")
    else:
        _join_epochs(readings, notes)


def _free_evaluations(readings: list[Figures], unit: str, notes: list[str]) -> None:
    """Take the step from evaluations that all have the same, while training went on between them."""
    evaluations = [each for each in readings if "eval_loss" in each and "loss" not in each and unit in each]
    if len({each[unit] for each in evaluations}) != 1 or len(evaluations) < 2:
        return
    reached, behind = -math.inf, []
    for each in readings:
        if "loss" in each:
            reached = max(reached, each.get(unit, reached))
        elif "eval_loss" in each:
            behind.append((reached, each.get(unit, math.inf) < reached))
    if len({at for at, _ in behind}) < len(behind) or not all(is_behind for _, is_behind in behind):
        return
    for each in evaluations:
        del each[unit]
    notes.append("evaluations all have the same step, and take that of the row before")


def _join_epochs(readings: list[Figures], notes: list[str]) -> None:
    """Let steps go on where they begin anew with each epoch."""
    timed = [each for each in readings if "epoch" in each and math.isfinite(each["epoch"])]
    falls = [(a, b) for a, b in pairwise(timed) if b["step"] < a["step"]]
    anew = [(a, b) for a, b in falls if b["epoch"] > a["epoch"]]
    if not anew or 2 * len(anew) < len(falls):
        return
    said = [each[name] for each in timed for name in ("epoch_steps", "steps") if name in each]
    length = int(max((each for each in said if each < _LAST_STEP), default=0))
    if length < max(each["step"] for each in timed):
        length = 0
    gaps = [b["step"] - a["step"] for a, b in pairwise(timed) if b["step"] > a["step"]]
    gap, starts, offset, before = min(gaps, default=1), {id(b) for _, b in anew}, 0, 0
    for each in readings:
        if id(each) in starts:
            offset = offset + length if length else before + gap - each["step"]
        each["step"] += offset
        before = each["step"]
        each.pop("steps", None)  # those of an epoch
    notes.append("steps begin anew with each epoch, and are counted on")


class _Walk:
    """Goes through readings in order, and drops what a restart made void."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._runs: list[list[Figures]] = [[]]
        self._late: list[tuple[int, int, Figures]] = []  # a heap, the last step first
        self._order = count()
        self._first: int | None = None  # step of the first row of the run with a loss
        self._backs = self._void = self._changed = 0

    def take(self, readings: Sequence[Figures]) -> list[list[Figures]]:
        """The readings of each run, one a step. Raises: InputError if steps go back all the time."""
        taken = [each for each in readings if each["step"] >= 0 and self._has_figures(each)]
        for each in taken:
            self._add(each)
        self._settle()
        if self._backs * _MOST_BACK > len(taken):
            raise InputError(
                f"steps go back at {self._backs:,} of {len(taken):,} rows; a log in the order of training "
                "was expected; sort it by step"
            )
        if self._void:
            rows = plural(self._void, "row")
            self._notes.append(f"training went back; {rows} beyond that step left out as void")
        if self._changed:
            times = f"{plural(self._changed, 'step')} {verb(self._changed, 'have')}"
            self._notes.append(f"{times} two rows with other figures, of which the later counts")
        return [run for run in self._runs if run]

    def _has_figures(self, reading: Figures) -> bool:
        return bool(reading["metrics"]) or any(name in reading for name in (*_FIELDS, "memory_bytes"))

    def _add(self, reading: Figures) -> None:
        run, step = self._runs[-1], reading["step"]
        if run and step < run[-1]["step"]:
            if "loss" not in reading:  # an evaluation that took longer than the steps after it
                heappush(self._late, (-step, next(self._order), reading))
                return
            self._backs += 1
            if self._first is None or step <= self._first:
                self._settle()
                run, self._first = [], None
                self._runs.append(run)
            while run and run[-1]["step"] >= step:
                run.pop()
                self._void += 1
            while self._late and -self._late[0][0] >= step:
                heappop(self._late)
        if self._first is None and "loss" in reading:
            self._first = step
        if run and step == run[-1]["step"]:
            self._merge(run[-1], reading)
        else:
            run.append(reading)

    def _merge(self, kept: Figures, other: Figures) -> None:
        metrics = kept["metrics"] | other["metrics"]
        self._changed += any(
            name in kept and name in other and kept[name] != other[name] and not math.isnan(other[name])
            for name in ("loss", "eval_loss")
        )
        kept.update(other)
        kept["metrics"] = metrics

    def _settle(self) -> None:
        """Put late evaluations where they belong."""
        late, self._late = sorted(self._late, key=lambda each: (-each[0], each[1])), []
        run: list[Figures] = []
        evaluations = ((at, each) for _, at, each in late)
        rows = ((-1, each) for each in self._runs[-1])
        for _, each in merge(rows, evaluations, key=lambda row: (row[1]["step"], row[0])):
            if run and run[-1]["step"] == each["step"]:
                self._merge(run[-1], each)
            else:
                run.append(each)
        self._runs[-1] = run


def _run(name: str, unit: str, readings: list[Figures], columns: Columns, notes: Sequence[str]) -> Run:
    facts: dict[str, Any] = {}
    if steps := max((each.get("steps", 0) for each in readings), default=0):
        facts["steps"] = int(steps) if math.isfinite(steps) and steps > 0 else None
    _set_epochs(readings, unit, facts)
    names = {figure: each for figure, each in columns.names.items() if any(figure in row for row in readings)}
    return Run(name, [_point(each) for each in readings], unit, names, facts, list(notes))


def _set_epochs(readings: list[Figures], unit: str, facts: dict[str, Any]) -> None:
    """Make epochs the passes that are done: a log may count them whole, from 0 or from 1."""
    timed = [each for each in readings if "epoch" in each and math.isfinite(each["epoch"])]
    if not timed:
        return
    first, last = timed[0], timed[-1]
    base = 0 if min(each["epoch"] for each in timed) < 1 else 1
    if unit == "epoch":
        facts["steps_per_epoch"] = 1
        for each in timed:
            each["epoch"] += 1 - base
        return
    if any(each["epoch"] != int(each["epoch"]) for each in timed):
        if unit == "step" and last["epoch"] > 0 and last["step"] > 0:
            facts["steps_per_epoch"] = max(round(last["step"] / last["epoch"]), 1)
        return
    begins = next(each for each in timed if each["epoch"] == last["epoch"])
    passes, steps = last["epoch"] - first["epoch"], begins["step"] - first["step"]
    length = steps / passes if passes > 0 and steps > 0 else None
    if length and unit == "step":
        facts["steps_per_epoch"] = max(round(length), 1)
    for each in timed:
        done = each["epoch"] - base
        each["epoch"] = min(max(each["step"] / length, done), done + 1) if length else done


def _point(figures: Figures) -> Point:
    known = {
        name: figures[name]
        for name in _FIELDS
        if name in figures and (name in _MAY_BE_NAN or math.isfinite(figures[name]))
    }
    epoch, memory = figures.get("epoch"), figures.get("memory_bytes")
    return Point(
        step=figures["step"],
        epoch=epoch if epoch is not None and math.isfinite(epoch) else None,
        memory_bytes=int(memory) if memory is not None and math.isfinite(memory) else None,
        skipped=bool(figures.get("skipped")),
        metrics=figures["metrics"],
        **known,
    )
