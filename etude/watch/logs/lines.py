"""Logs for people: lines with a step or an epoch and figures behind their names, in any usual layout."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from etude.watch.logs.names import is_of_evaluation, is_of_training, meaning_of
from etude.watch.logs.rows import Row, Source
from etude.watch.logs.scan import figures_of

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.")
_ENDS = re.compile(r"[\r\n\x08]+")
_LONGEST_LINE = 8192
_LOOKED_AT = re.compile(
    r"(?i)loss|nll|entropy|xent|step|iter|epoch|update|batch|tok|norm|\blr\b|learning|%\|"
)
_BAR = re.compile(r"(?P<title>[^|\r\n]{0,80}?)\d+%\|[^|]{0,200}\|\s*(?P<at>\d+)/(?P<of>\d+)\s*\[")
_BAR_END = re.compile(r"(?<=\])\s*(?=\{)")  # what was printed over a bar
_KERAS = re.compile(r"\s*(?P<at>\d+)/(?P<of>\d+)\s+(?:\[[=>.]+\]|[\u2501\u2500\u2578\u257a]+)")
_OF_EVALUATION = re.compile(r"(?i)\b(?:evaluat(?:ion|ing)|eval|valid(?:ation|ating)?|val|dev|test)\b")
_ALONE = re.compile(r"[\s,|;/(]*(?:val|valid|validation|eval|test)\s*[:=]?\s*")  # `loss train: 2.5, val: 2.6`
_OF_STEPS = re.compile(r"\s*(?:batches|steps|iterations|iters)\b")  # `200/ 2983 batches`
_SHOWN, _MOST_LATE = "step of a bar", 5
_DONE = 0.95  # of a bar, from which another that begins at 0 is another epoch
Figures = dict[str, float]


@dataclass
class _Place:
    """The step and epoch that the lines so far have named, for lines that name none.

    is_shown   whether a bar tells the step, which it may do a little late
    bar        position and length of the progress bar of training
    counts     whether epochs are counted by bars that begin anew
    eval_loss  the last one, which bars show again at each step
    """

    step: float | None = None
    is_shown: bool = False
    epoch: float | None = None
    bar: tuple[float, float] = (0.0, 0.0)
    counts: bool = False
    eval_loss: float | None = None


def read_lines(text: str) -> Source | None:
    """The rows of a log in lines; None if no line has a loss."""
    place = _Place()
    rows = [row for line in _lines(text) if (row := _row(line, place))]
    kinds = {meaning.figure for row in rows for name in row if (meaning := meaning_of(name))}
    if not kinds & {"loss", "eval_loss"}:
        return None
    if "loss" not in kinds:  # "test" or "val" stands in all lines, as in the name of a run
        rows = [{name.removeprefix("eval/"): value for name, value in row.items()} for row in rows]
    return Source("log in lines", [Row(row) for row in _correct_shown(rows)])


def _correct_shown(rows: list[Figures]) -> list[Figures]:
    """Rows with the steps of their epochs where a bar told them, which is drawn ten times a second only."""
    shown = [row for row in rows if _SHOWN in row]
    known = [row for row in shown[len(shown) // 2 :] if row.get("epoch", 0.0) > 0]
    length = max((row[_SHOWN] / row["epoch"] for row in known), default=0.0)
    for row in shown:
        step, exact = row.pop(_SHOWN), row.get("epoch", 0.0) * _round(length)
        row["step"] = _round(exact) if -0.5 <= exact - step <= _MOST_LATE else step
    return rows


def _round(value: float) -> float:
    return float(round(value)) if math.isfinite(value) else value


def _lines(text: str) -> Iterator[str]:
    """Lines and states of progress bars, without colours; those without a word of a figure are left out."""
    for line in _ENDS.split(text):
        line = line[:_LONGEST_LINE]
        if _LOOKED_AT.search(line):
            yield from _BAR_END.split(_ESCAPES.sub("", line) if "\x1b" in line else line)


def _row(line: str, place: _Place) -> Figures | None:
    """The figures of a line, at the step and epoch that it or a line before it names."""
    keras = _KERAS.match(line)
    if keras and keras["at"] != keras["of"]:
        return None  # means over the part of an epoch that is done
    bar = None if keras else _BAR.match(line)
    if bar:
        line = f"{bar['title']} | {line[bar.end() :]}"
    row, named = _read(line[keras.end() :] if keras else line)
    if bar:
        _follow_bar(bar, place, named, has_figures=bool(row))
    if "step" in named:
        place.is_shown = bar is not None and not row
    place.step = None if keras else named.get("step", place.step)
    place.epoch = named.get("epoch", place.epoch)
    if bar and row.get("val_loss") == place.eval_loss:
        row.pop("val_loss", None)
    place.eval_loss = row.get("val_loss", place.eval_loss)
    if row:
        if keras:
            row.pop("seconds", None)  # those of a batch
        elif bar:
            row["steps_per_epoch"] = place.bar[1]
        known = {_SHOWN if place.is_shown else "step": place.step, "epoch": place.epoch}
        row = {**{name: value for name, value in known.items() if value is not None}, **row}
    return row or None


def _follow_bar(bar: re.Match[str], place: _Place, named: Figures, *, has_figures: bool) -> None:
    """Take the step of a bar of training: one that shows figures, or the longest of those without a title."""
    at, of, title = float(bar["at"]), float(bar["of"]), bar["title"].strip()
    last, length = place.bar
    if is_of_evaluation(title) or (not has_figures and (title or of < length)):
        return
    if has_figures and "epoch" not in named:
        if place.epoch is None:
            place.epoch, place.counts = 0.0, True
        elif place.counts and of == length and at < last and last >= _DONE * length:
            place.epoch += 1
    place.bar = at, of
    named.setdefault("step", at)


def _read(line: str) -> tuple[Figures, Figures]:
    """The figures of a line by name, and the step and epoch that it names."""
    row: Figures = {}
    named: Figures = {}
    rank, before, pair = 99, "", (0.0, 0.0)
    for name, meaning, value, between in figures_of(line):
        figure, gap = meaning.figure if meaning else "", between.strip(" \t)")
        if _OF_STEPS.match(between) and "step" not in named:
            named["step"], row["steps_per_epoch"] = pair
        if figure == "step":
            if meaning and meaning.rank < rank:
                rank, named["step"] = meaning.rank, value
        elif figure == "epoch":
            named.setdefault("epoch", value)
        elif figure:
            row.setdefault(name, value)
        elif gap == "/" and before == "step":
            row.setdefault("steps_per_epoch" if "epoch" in named else "total_steps", value)
        elif gap in ("[", "][") and before == "epoch":  # `Epoch: [0][10/5005]`, `Train Epoch: 1 [640/60000`
            named.setdefault("step", value)
            figure = "step"
        elif row and _ALONE.fullmatch(between):
            row.setdefault("val loss", value)
        pair, before = (pair[1], value), figure
    if not row.keys() - {"total_steps", "steps_per_epoch"}:
        row = {}
    return _name_evaluation(row, line), named


def _name_evaluation(row: Figures, line: str) -> Figures:
    """The figures of a line about an evaluation under names that say so, as those of `Test: loss 2.1`."""
    kinds = {name: meaning.figure for name in row if (meaning := meaning_of(name))}
    losses = {name for name, kind in kinds.items() if kind == "loss" and not is_of_training(name)}
    if losses and "eval_loss" not in kinds.values() and _OF_EVALUATION.search(line):
        return {f"eval/{name}" if name in losses else name: value for name, value in row.items()}
    return row
