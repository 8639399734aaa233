"""Charts of a sweep: SVG files for its report, in the style of those of a run."""

import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from etude.recipe.load import flatten
from etude.report.charts import draw_svg, is_drawn
from etude.report.wording import metric_title, setting, short
from etude.sweep.cells import Cell
from etude.sweep.deliverables import Deliverables
from etude.sweep.layout import key_title, layout
from etude.sweep.recommend import cost_front
from etude.sweep.standing import Standing

# Colours that also the colour-blind tell apart (Okabe and Ito), each with a mark of its own.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_BEST, _OPEN, _FRONT = "#b30000", "#eeeeee", "#888888"
_MOST_HEATS = 40
_MOST_LABELS = 12  # of an axis that are written
_WIDE = 30  # the largest time over the smallest, from which on an axis is logarithmic
_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def sweep_charts(made: Deliverables) -> dict[str, bytes]:
    """SVG files by name: a heat map for each model, all trials over their keys, cost, time to convergence.

    The heat maps have one scale of colours where all trials compare, so that a reader can lay two side by
    side. A chart without a value is left out. The same journals give the same bytes with the same matplotlib.
    """
    charts: dict[str, bytes] = {}
    final = [cell for cell in made.cells if _has_mark(cell)]
    for place, (model, standing) in enumerate(list(made.standings.items())[:_MOST_HEATS]):
        cells = made.of_model(model)
        rows, columns, _ = layout(cells)
        is_searched = any(cell.trial.study for cell in cells)
        if standing.best is not None and len(cells) > 1 and not is_searched:
            scale = [each.value or 0.0 for each in final if made.same_rows is not False or each in cells]
            fill = partial(_draw_heat, cells=cells, standing=standing, scale=scale)
            width = min(2.6 + 0.055 * max(map(len, rows), default=0) + 1.3 * len(columns), 12)
            charts[f"heat-{place + 1}.svg"] = draw_svg(fill, width=width, height=1.1 + 0.36 * len(rows))
    if len(final) > 1 and made.same_rows is not False:
        charts["parallel.svg"] = draw_svg(partial(_draw_parallel, made=made, cells=final), height=4.2)
        charts["cost.svg"] = draw_svg(partial(_draw_cost, made=made, cells=final), height=4.0)
    if any(cell.converged for cell in final):
        height = 1.2 + 0.45 * len(made.standings)
        charts["convergence.svg"] = draw_svg(partial(_draw_convergence, made=made), height=height)
    return charts


def _draw_heat(
    figure: Any, axes: Any, *, cells: Sequence[Cell], standing: Standing, scale: Sequence[float]
) -> None:
    """The metric over the grid of a model; a trial without a final value has its state and no colour.

    scale: values whose lowest and highest the colours reach to
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    rows, columns, grid = layout(cells)
    best, like = standing.best, {cell.name for cell in standing.like}
    spread = (max(scale) - min(scale)) or 0.1 * max(abs(scale[0]), 0.1)  # of one colour, on a plain scale
    norm = Normalize(min(scale) - 0.15 * spread, max(scale) + 0.15 * spread)
    colours = colormaps["Blues_r" if cells[0].metric.lower_is_better else "Blues"]
    for (row, column), cell in grid.items():
        x, y = columns.index(column), rows.index(row)
        value = cell.value if _has_mark(cell) else None
        colour = _OPEN if value is None else colours(norm(value))
        is_best = cell is best
        patch = Rectangle(
            (x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, zorder=2 + is_best,
            edgecolor=_BEST if is_best else "white", linewidth=2.2 if is_best else 1.5,
        )  # fmt: skip
        axes.add_patch(patch)
        text = cell.state if value is None else short(value, 4)
        text += " ~" if cell.name in like else " (early)" if cell.state == "ended early" else ""
        depth = 0.0 if value is None else norm(value)
        is_dark = (1 - depth if cell.metric.lower_is_better and depth else depth) > 0.6
        axes.text(x, y, text, ha="center", va="center", color="white" if is_dark else "black", zorder=4)
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xticks(range(len(columns)), [_plain(column) for column in columns])
    axes.set_yticks(range(len(rows)), [_plain(row) for row in rows])
    axes.tick_params(length=0)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    title = _title(str(cells[0].metric))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=title, aspect=12)
    bar.outline.set_visible(False)


def _has_mark(cell: Cell) -> bool:
    """True for a trial that has done all its steps, with a value that an axis holds."""
    return cell.is_final and cell.value is not None and is_drawn(cell.value)


def _draw_parallel(figure: Any, axes: Any, *, made: Deliverables, cells: Sequence[Cell]) -> None:
    """A line for each trial over the model and the keys of the grids to the metric."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    keys = list(dict.fromkeys(key for cell in cells for key in cell.trial.values))
    flat = {cell.name: flatten(cell.trial.recipe.to_dict()) for cell in cells}
    columns: list[tuple[str, dict[str, Any]]] = [("model", {cell.name: cell.trial.model for cell in cells})]
    columns += [(key_title(key), {name: values.get(key) for name, values in flat.items()}) for key in keys]
    columns = [column for column in columns if len(set(map(repr, column[1].values()))) > 1]
    values = [cell.value or 0.0 for cell in cells]
    low, high = min(values), max(values)
    sign, span = cells[0].metric.sign, (high - low) or 1.0
    norm, colours = Normalize(-0.25, 1.0), colormaps["Blues"]
    height = {cell.name: (0.5 if low == high else (value - low) / span) for cell, value in zip(cells, values)}
    worth = {name: at if sign > 0 else 1 - at for name, at in height.items()}
    places = {title: _spread(shown) for title, shown in columns}
    for number, cell in enumerate(sorted(cells, key=lambda each: worth[each.name])):
        # Trials of the same value lie side by side, so that each line can be followed.
        shift = 0.05 * (number / max(len(cells) - 1, 1) - 0.5)
        line = [places[title][repr(shown[cell.name])] + shift for title, shown in columns]
        is_best = cell is made.overall.best
        axes.plot(
            range(len(columns) + 1), [*line, height[cell.name]], linewidth=2.4 if is_best else 1.0,
            color=_BEST if is_best else colours(norm(worth[cell.name])), zorder=3 if is_best else 2,
        )  # fmt: skip
    for x, (title, shown) in enumerate(columns):
        axes.axvline(x, color=_FRONT, linewidth=0.8, zorder=1)
        for value in shown.values() if len(set(map(repr, shown.values()))) <= _MOST_LABELS else ():
            axes.annotate(
                _plain(setting(value)), (x, places[title][repr(value)]), xytext=(4, 0), zorder=5, fontsize=8,
                textcoords="offset points", va="center", bbox={"facecolor": "white", "alpha": 0.75, "pad": 1,
                "edgecolor": "none"},
            )  # fmt: skip
    axes.axvline(len(columns), color=_FRONT, linewidth=0.8, zorder=1)
    axes.set_xticks(range(len(columns) + 1), [*(_plain(title) for title, _ in columns), _title(made.metric)])
    right = axes.secondary_yaxis("right")
    right.set_yticks([0, 0.5, 1], [short(low + part * span, 4) for part in (0, 0.5, 1)])
    right.spines["right"].set_visible(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.1, len(columns))
    axes.set_ylim(-0.08, 1.08)


def _draw_cost(figure: Any, axes: Any, *, made: Deliverables, cells: Sequence[Cell]) -> None:
    """The metric against the device time of a trial alone, and the trials that none beats in both."""
    sign, models = cells[0].metric.sign, list(made.standings)
    times = [made.costs.alone.get(cell.name, 0.0) for cell in cells]
    unit, length = _unit(times)
    points = [(time / length, cell.value or 0.0) for time, cell in zip(times, cells)]
    front = cost_front(points, sign)
    if len(front) > 1:
        axes.plot(
            [points[place][0] for place in front], [points[place][1] for place in front], color=_FRONT,
            linewidth=1.4, linestyle="--", drawstyle="steps-post", label="Pareto front", zorder=2,
        )  # fmt: skip
    for number, model in enumerate(models):
        mine = [point for point, cell in zip(points, cells) if cell.trial.model == model]
        if mine:
            axes.plot(*zip(*mine), **_look(number), label=_plain(model), zorder=3)
    if made.overall.best in cells:
        best = cells[list(cells).index(made.overall.best)]  # type: ignore[arg-type]
        x, y = points[list(cells).index(best)]
        axes.plot([x], [y], **_look(models.index(best.trial.model)), zorder=4)  # above others at its place
        axes.plot(
            [x], [y], marker="o", markersize=13, markerfacecolor="none", markeredgecolor=_BEST,
            markeredgewidth=1.6, linestyle="none", label="best", zorder=4,
        )  # fmt: skip
    axes.set_xlabel(f"device time of the trial alone ({unit})")
    axes.set_ylabel(_title(made.metric))
    _scale(axes, [x for x, _ in points])
    axes.margins(0.06, 0.08)
    figure.legend(frameon=False, loc="outside upper left", ncols=4, handletextpad=0.4)


def _draw_convergence(figure: Any, axes: Any, *, made: Deliverables) -> None:
    """The training time of each trial to the first evaluation within one standard error of its best."""
    models = list(made.standings)
    found = {
        model: [cell.converged[1] for cell in made.of_model(model) if cell.converged is not None]
        for model in models
    }
    unit, length = _unit([time for times in found.values() for time in times])
    for number, model in enumerate(models):
        times = sorted(time / length for time in found[model])
        offsets = [0.12 * (place % 3 - 1) for place in range(len(times))]
        axes.plot(times, [number + offset for offset in offsets], **_look(number), alpha=0.75, zorder=3)
        if times:
            middle = statistics.median(times)
            axes.plot([middle] * 2, [number - 0.32, number + 0.32], color="black", linewidth=2, zorder=4)
    axes.set_yticks(range(len(models)), [_plain(model) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel(f"training time to convergence ({unit}; bar: median of the model's trials)")
    _scale(axes, [time / length for times in found.values() for time in times])


def _look(number: int) -> dict[str, Any]:
    """The colour and mark of a model."""
    place = number % len(_COLOURS)
    return {
        "color": _COLOURS[place], "marker": _MARKS[place], "linestyle": "none", "markersize": 6,
        "markeredgecolor": "white", "markeredgewidth": 0.6,
    }  # fmt: skip


def _spread(shown: dict[str, Any]) -> dict[str, float]:
    """The height of each value of a column, evenly from 0 to 1: numbers by size, all else as it comes."""
    values = list({repr(value): value for value in shown.values()}.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        values.sort()
    return {repr(value): place / max(len(values) - 1, 1) for place, value in enumerate(values)}


def _unit(times: Sequence[float]) -> tuple[str, float]:
    """The unit in which the largest of some times is above 2, and its seconds."""
    return next(((name, length) for name, length in _UNITS if max(times) >= 2 * length), _UNITS[-1])


def _scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis for times that lie far apart, else one from zero."""
    if min(values) > 0 and max(values) > _WIDE * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    elif math.isfinite(max(values)):
        axes.set_xlim(left=0)


def _title(metric: str) -> str:
    return _plain(metric_title(metric))


def _plain(text: str) -> str:
    """Text that matplotlib draws as it is, and not as a formula."""
    return text.replace("$", r"\$")
