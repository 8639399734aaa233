"""One chart of several runs for the terminal: a panel each, all on one scale of the loss."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from etude.report.braille import Scale, draw_levels
from etude.report.columns import shorten_apart
from etude.report.wording import short

_AXIS, _LEAST_WIDTH, _WIDEST = 9, 14, 44
_ROOM = 1.25  # of the highest first value: what goes beyond it is drawn at the upper edge
_LEGEND = "⠒ training loss  ● validation  ◆ best; one scale, each panel as long as its run"

_BEYOND = "▲ validation above the scale"


@dataclass(frozen=True)
class Panel:
    """The losses of a run by step; `best` is the step of its best checkpoint."""

    title: str
    training: Sequence[tuple[int, float]]
    validation: Sequence[tuple[int, float]]
    best: int | None = None

    @property
    def last(self) -> int:
        """The last step."""
        return max([step for step, _ in (*self.training, *self.validation)], default=0)


def draw_panels(panels: Sequence[Panel], width: int, height: int = 9) -> list[str]:
    """The lines of a chart, `height` for each row of panels; nothing without two finite losses."""
    across = max(min(len(panels), (width - _AXIS) // _LEAST_WIDTH), 1)
    each = min((width - _AXIS) // across - 1, _WIDEST)
    names = shorten_apart([panel.title for panel in panels], each)
    curves = [_columns(panel, 2 * each) for panel in panels]
    ends = [[loss for _, loss in panel.validation if math.isfinite(loss)] for panel in panels]
    drawn = [loss for curve in curves for loss in curve if loss is not None]
    levels = [*drawn, *(loss for losses in ends for loss in losses)]
    if len(levels) < 2:
        return []
    first = [next((loss for loss in curve if loss is not None), -math.inf) for curve in curves]
    most = _ROOM * max([*first, *(losses[0] for losses in ends if losses)])
    low, high = min(levels), max(min(max(levels), most), min(levels))
    scale = Scale(low, high, height)
    lines = []
    for start in range(0, len(panels), across):
        some = range(start, min(start + across, len(panels)))
        pictures = [_draw(panels[place], curves[place], each, scale) for place in some]
        titles = "".join(f" {names[place]:<{each}}" for place in some)
        lines.append(f"{'':{_AXIS}}{titles}".rstrip())
        for number, parts in enumerate(zip(*pictures)):
            label = {0: short(high), height - 1: short(low)}.get(number, "")
            lines.append(f"{label:>{_AXIS - 1}} {''.join(f'│{part}' for part in parts)}".rstrip())
        steps = "".join(f"{f'step {panels[place].last:,}':>{each + 1}}" for place in some)
        lines.append(f"{'':{_AXIS}}{steps}".rstrip())
    return [*lines, _LEGEND, *([_BEYOND] if any("▲" in line for line in lines) else [])]


def _columns(panel: Panel, count: int) -> list[float | None]:
    """Mean training loss of the steps that end in each column; where none does, that of the one before."""
    steps, columns = [step for step, _ in panel.training], []
    before: float | None = None
    for column in range(count if steps else 0):
        low, high = (bisect_left(steps, panel.last * place / count + 1e-9) for place in (column, column + 1))
        finite = [loss for _, loss in panel.training[low:high] if math.isfinite(loss)]
        if high > low:
            before = sum(finite) / len(finite) if finite else None
        columns.append(before)
    return columns


def _draw(panel: Panel, curve: Sequence[float | None], width: int, scale: Scale) -> list[str]:
    levels = [math.nan if loss is None else loss for loss in curve]
    lines = draw_levels(levels, [True] * len(levels), width, scale)
    for step, loss in sorted(panel.validation, key=lambda point: point[0] == panel.best):
        if math.isfinite(loss):
            x = min(step * width // max(panel.last, 1), width - 1)
            mark = "▲" if loss > scale.high else "◆" if step == panel.best else "●"
            lines[scale.row(loss) // 4][x] = mark
    return ["".join(line) for line in lines]
