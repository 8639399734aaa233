"""Models scored on the rows of one file, beside each other, as `etude evaluate` shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.records.events import plain
from etude.report.columns import Row, lay_out, shorten_apart, wrap
from etude.report.wording import NOTHING, with_interval
from etude.text import plural

_FIGURES_SHOWN = 12
_BESIDE_FILE = 30  # columns of a line that a file leaves to other words
Interval = list[float]


@dataclass(frozen=True, kw_only=True)
class System:
    """A model, scored.

    name       as given, of a run without its folder
    step       of its checkpoint; None of a folder
    figures    value, low and high of each, by name
    parts      (samples, 3) sum of losses in nats, targets, bytes
    cut        rows that lost their end
    trained    rows that its run was trained on, as far as its prepared data is still there
    tokenizer  hash of it
    labels     names of a classifier's labels, in the order of its outputs
    measured   result of its kind, with predictions of the rows and the measure of them
    """

    name: str
    step: int | None
    metric: str
    figures: dict[str, Interval]
    parts: np.ndarray
    rows: int
    cut: int
    trained: int
    tokenizer: str
    labels: tuple[str, ...]
    measured: Any


@dataclass(frozen=True)
class Rescored:
    """Systems on the rows of one file; the first is what the others are held against.

    figure       what decides: the metric, or the loss per token or byte
    differences  of each system from the first, as value, low and high, by figure; empty where rows differ
    sentences    the result in words
    """

    file: str
    systems: list[System]
    figure: str
    differences: list[dict[str, Interval]]
    winner: list[str]
    is_sure: bool | None
    sentences: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": self.file,
            "rows": self.systems[0].rows,
            "figure": self.figure,
            "baseline": self.systems[0].name,
            "winner": self.winner,
            "is_sure": self.is_sure,
            "sentences": self.sentences,
            "systems": [
                {
                    "name": system.name,
                    "step": system.step,
                    "rows": system.rows,
                    "samples": len(system.parts),
                    "targets": int(system.parts[:, 1].sum()),
                    "bytes": int(system.parts[:, 2].sum()) or None,
                    "cut_rows": system.cut,
                    "trained_rows": system.trained,
                    "figures": {name: plain(value) for name, value in system.figures.items()},
                    "against_baseline": {name: plain(value) for name, value in differences.items()},
                }
                for system, differences in zip(self.systems, self.differences)
            ],
        }

    def lines(self, width: int) -> list[str]:
        """The winner, and a table of the figures that tell most."""
        rows = [Row("", [system.name for system in self.systems], is_text=True)]
        for name in list(dict.fromkeys(name for system in self.systems for name in system.figures)):
            known = [system.figures.get(name) for system in self.systems]
            if len(rows) < 2 * _FIGURES_SHOWN:
                rows.append(Row(name.replace("_", " "), [self._cell(value) for value in known]))
            if any(name in each for each in self.differences[1:]):
                gains = [each.get(name) for each in self.differences]
                rows.append(Row("  against first", ["first", *map(_gain_text, gains[1:])]))
                rows.append(Row("  its interval", ["", *map(_range_text, gains[1:])]))
        lines = [line for sentence in self.sentences for line in wrap(sentence, width)]
        (file,) = shorten_apart([self.file], max(width - _BESIDE_FILE, _BESIDE_FILE))
        what = f"{plural(self.systems[0].rows, 'row')} of {file}; intervals of 95 %"
        what += "; ~ is within the noise." if len(self.systems) > 1 else "."
        return [*lines, *wrap(what, width), "", *lay_out(rows, width)]

    def _cell(self, value: Interval | None) -> str:
        return NOTHING if value is None else with_interval(*value, rows=self.systems[0].rows)


def _gain_text(gain: Interval | None) -> str:
    if gain is None:
        return NOTHING
    value, low, high = gain
    return f"{value:+.2g}{'' if low > 0 or high < 0 else ' ~'}"


def _range_text(gain: Interval | None) -> str:
    return "" if gain is None else f"[{gain[1]:.2g}, {gain[2]:.2g}]"
