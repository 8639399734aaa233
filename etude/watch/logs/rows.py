"""Rows of a log: figures under the names that its writer gave them, in the order of the log."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from etude.errors import InputError
from etude.text import one_line
from etude.watch.logs.names import Meaning, meaning_of

MOST_ROWS = 500_000
_NEEDS_LOSS = ("loss", "eval_loss")
_NAMED = 4
LOOKED_FOR = "a loss (loss, train/loss, val_loss ...) with a step or an epoch"


class Row(NamedTuple):
    """Figures that a log gives together, by name; `run` names one of several runs of the log."""

    figures: Mapping[str, float]
    run: str = ""


@dataclass
class Source:
    """Rows of a log as its reader found them.

    format  words for the form of the log
    facts   of the run, as `Facts` has them, where the log tells
    notes   of the reader: what was left out, and why
    """

    format: str
    rows: Iterable[Row]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Columns(NamedTuple):
    """The name that was chosen for each figure, metrics by their own names, and those that are left out."""

    names: Mapping[str, str]
    scales: Mapping[str, float]
    metrics: Mapping[str, str]

    def read(self, row: Row) -> dict[str, float]:
        """The figures of a row that were chosen."""
        figures = row.figures
        return {
            figure: figures[name] * self.scales[figure]
            for figure, name in self.names.items()
            if name in figures
        }


def keep(rows: Iterable[Row]) -> list[Row]:
    """The rows that tell of training or an evaluation, without the closing summary of a run.

    Raises: InputError if there are too many, or none.
    """
    kept, summaries = [], 0
    for row in rows:
        if is_summary(row):
            summaries += 1
        elif row.figures:
            kept.append(row)
        if len(kept) > MOST_ROWS:
            raise InputError(f"the log has over {MOST_ROWS:,} rows; give a part of it")
    if not kept:
        what = (
            "only the closing summary of a run, and no row of a step"
            if summaries
            else "no row with figures yet"
        )
        raise InputError(f"the log holds {what}; {LOOKED_FOR} was looked for")
    return kept


def is_summary(row: Row) -> bool:
    """True for the row that closes a run: its train_loss is the mean of the run, not of a step."""
    return any(meaning.figure == "summary" for _, meaning in _meanings(row.figures))


def choose(rows: Sequence[Row]) -> Columns:
    """Choose one name for each figure. Raises: InputError if no name stands for a loss.

    Where several names stand for a figure, it is the best of those that at least half as many rows have as
    have the most frequent; of validation losses the best of all.
    """
    counts = Counter(name for row in rows for name in row.figures)
    candidates: dict[str, list[tuple[str, Meaning]]] = {}
    for name, meaning in _meanings(counts):
        candidates.setdefault(meaning.figure, []).append((name, meaning))
    if not any(figure in candidates for figure in _NEEDS_LOSS):
        names = ", ".join(one_line(name, 30) for name, _ in counts.most_common(_NAMED))
        raise InputError(f"no log of a training: {LOOKED_FOR} was looked for; there are only {names}")
    chosen = {
        figure: _best(figure, names, counts) for figure, names in candidates.items() if figure != "metric"
    }
    return Columns(
        {figure: name for figure, (name, _) in chosen.items()},
        {figure: meaning.scale for figure, (_, meaning) in chosen.items()},
        {name: meaning.metric for name, meaning in candidates.get("metric", ())},
    )


def _meanings(names: Iterable[str]) -> Iterator[tuple[str, Meaning]]:
    return ((name, meaning) for name in names if (meaning := meaning_of(name)))


def _best(figure: str, names: list[tuple[str, Meaning]], counts: Counter[str]) -> tuple[str, Meaning]:
    least = 0.0 if figure == "eval_loss" else max(counts[name] for name, _ in names) / 2
    often = [(name, meaning) for name, meaning in names if counts[name] >= least]
    return min(often, key=lambda each: (each[1].rank, -counts[each[0]], len(each[0])))
