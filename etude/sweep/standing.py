"""The best trial of several, and those that the noise does not tell from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from etude.report.ranking import PER_TOKEN, apart
from etude.scores.intervals import Difference
from etude.sweep.cells import Cell
from etude.text import plural, verb

_NORMAL = 1.959964  # half the width of an interval of 95 %, in standard errors


@dataclass(frozen=True)
class Beside:
    """A trial beside the best.

    gain    by how much the best is better, with its interval; None where the noise is not known
    basis   how it is known: `rows` that both predicted, or `errors` of each alone, which is a wider interval
    """

    cell: Cell
    gain: Difference | None
    basis: str = ""

    @property
    def is_like_best(self) -> bool | None:
        """True if it is not distinguishable from the best; None where the noise is not known."""
        return None if self.gain is None else not self.gain.low > 0


@dataclass(frozen=True)
class Standing:
    """Trials by their value, the best first.

    others  those that ended, but for the best
    left    those without a final value: still running, stopped, failed or missing
    apart   all that ended, where they do not compare, so that none is the best
    """

    best: Cell | None
    others: tuple[Beside, ...]
    left: tuple[Cell, ...]
    apart: tuple[Cell, ...] = ()

    @property
    def like(self) -> list[Cell]:
        """Trials that are not distinguishable from the best."""
        return [each.cell for each in self.others if each.is_like_best]

    @property
    def is_known(self) -> bool:
        """True if the noise of all is known."""
        return all(each.gain is not None for each in self.others)


def stand(cells: Sequence[Cell]) -> Standing:
    """The standing of trials by the metric that chose their checkpoints, on validation rows."""
    final = [cell for cell in cells if cell.is_final and cell.value is not None]
    left = tuple(cell for cell in cells if cell not in final)
    if not final or same_rows(final) is False:
        return Standing(None, (), left, tuple(final))
    order = sorted(final, key=lambda cell: -cell.metric.sign * (cell.value or 0.0))
    best, *others = order
    return Standing(best, tuple(_beside(best, other) for other in others), left)


def best_of(cells: Sequence[Cell]) -> Cell | None:
    """The best trial of all that ended; None where there is none, or their rows are not the same."""
    final = [cell for cell in cells if cell.is_final and cell.value is not None]
    if not final or same_rows(cells) is False:
        return None
    return max(final, key=lambda cell: cell.metric.sign * (cell.value or 0.0))


def same_rows(cells: Sequence[Cell]) -> bool | None:
    """True if trials are measured on the same validation rows by the same metric; None if it is not known.

    A loss of tokens is the same metric where the tokens are those of one tokenizer.
    """
    known = [(cell, cell.history.data) for cell in cells if cell.history and cell.history.data]
    if len({str(cell.metric) for cell, _ in known}) > 1:
        return False
    if len({data.tokenizer for cell, data in known if _is_of_tokens(cell)} - {None}) > 1:
        return False
    held_out = [
        {use: value for use, value in data.held_out.items() if use.endswith("validation")}
        for _, data in known
    ]
    if not all(held_out):
        return None
    return all(each == held_out[0] for each in held_out)


def likeness_text(standing: Standing) -> str:
    """A sentence on the trials that are like the best."""
    if not standing.others:
        return ""
    if not standing.is_known:
        return "The noise is not known for all others, so the lead over them may be chance."
    if not standing.like:
        others = "the other" if len(standing.others) == 1 else f"all {len(standing.others)} others"
        return f"It is better than {others} beyond the noise of the rows{_but(standing.best)}."
    names = dict.fromkeys(each.trial.model for each in standing.like)
    return f"Not distinguishable from it: {', '.join(names)}."


def worth_text(best: Cell, cells: Sequence[Cell]) -> str:
    """Sentences on the best of some trials beside the best baseline, and on those that beat one."""
    beside = best.baseline
    if beside is None:
        return "No baseline was measured beside it."
    if beside.is_beaten is None:
        return f"The noise of its lead over a baseline is not known: {beside.text}."
    if beside.is_beaten:
        return f"It is better than every baseline beyond the noise of the rows: {beside.text}."
    final = [cell.baseline.is_beaten if cell.baseline else None for cell in cells if cell.is_final]
    if final.count(True):
        some = f"{plural(final.count(True), 'other trial')} {verb(final.count(True), 'are')}"
        return f"It is not better than a baseline beyond the noise of the rows, {some}: {beside.text}."
    known = final.count(False)
    some = "It is not" if known < 2 else f"None of the {known} trials whose baselines are known is"
    which = some if None in final else "No trial is"
    return f"{which} better than a baseline beyond the noise of the rows: {beside.text}."


def gain_text(beside: Beside) -> str:
    """The distance of a trial from the best in words."""
    if beside.gain is None:
        return ""
    lower = beside.cell.metric.lower_is_better
    gain = beside.gain
    shown = Difference(-gain.value, -gain.high, -gain.low) if lower else gain
    return apart(shown, "it")


def _but(best: Cell | None) -> str:
    """The end of a sentence on a best trial that is not better than a baseline beyond the noise."""
    is_beaten = best.baseline.is_beaten if best and best.baseline else None
    return ", but not than a baseline" if is_beaten is False else ""


def _is_of_tokens(cell: Cell) -> bool:
    """True if the value of a trial is a loss of tokens, as of texts, masked tokens and pairs."""
    parts = cell.trial.recipe.by_task()
    mine = [parts[cell.metric.task]] if cell.metric.task in parts else [*parts.values()]
    return cell.metric.name in PER_TOKEN and not all(part.kind.has_labels for part in mine)


def _beside(best: Cell, other: Cell) -> Beside:
    assert best.value is not None and other.value is not None
    sign = best.metric.sign
    if best.kept and other.kept:
        found = best.kept.difference(other.kept)
        if found is not None and math.isfinite(found.high - found.low):
            low, high = sorted([sign * found.low, sign * found.high])
            return Beside(other, Difference(sign * found.value, low, high), "rows")
    errors = [best.error[0], other.error[0]]
    if errors[0] is None or errors[1] is None:
        return Beside(other, None)
    value, reach = best.metric.gain(best.value, other.value), _NORMAL * math.hypot(errors[0], errors[1])
    return Beside(other, Difference(value, value - reach, value + reach), "errors")
