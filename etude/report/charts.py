"""Charts of a run: SVG files for the report, and text charts for the terminal."""

import io
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etude.report.history import History

_POINTS = 800  # about one a pixel of the width that the charts are read at
_RAW, _SMOOTH, _OTHER, _MARK = "#9ecae1", "#1f5f99", "#d95f02", "#b30000"
_BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # dots of a cell, by column and row


def chart_svgs(history: History) -> dict[str, bytes]:
    """SVG files by name: loss, learning rate, gradient norm, speed; none before the first step.

    The same records give the same bytes with the same matplotlib.
    """
    if not history.steps:
        return {}
    charts: dict[str, Callable[[Any, History], None]] = {
        "loss.svg": _draw_loss,
        "learning_rate.svg": _draw_learning_rate,
        "grad_norm.svg": _draw_grad_norm,
        "speed.svg": _draw_speed,
    }
    # matplotlib reads and writes its list of fonts in the encoding of the locale.
    with warnings.catch_warnings(action="ignore", category=EncodingWarning):
        return {name: _svg(draw, history) for name, draw in charts.items()}


def braille_curve(
    values: Sequence[float], width: int, height: int, mark: int | None = None, *, ends: Sequence[int] = ()
) -> list[str]:
    """A curve in `height` lines of `width` characters, 2 x 4 dots each, with ◆ for the value at index `mark`.

    Each value is a level over its own stretch, and nothing is drawn between levels that was not measured:
    neighbours are joined only where each column has a value of its own. Non-finite values leave a gap. The
    top line is at the largest value, the bottom line at the smallest.

    ends: where each stretch ends, as in steps; by default they are equally long.
    """
    ends = ends or range(1, len(values) + 1)
    columns = _columns(values, ends, 2 * width)
    finite = [value for value, _ in columns if math.isfinite(value)]
    if not finite:
        return [" " * width] * height
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    dots = 4 * height
    rows = [
        round((1 - (value - low) / span) * (dots - 1)) if math.isfinite(value) else None
        for value, _ in columns
    ]
    cells = [[0] * width for _ in range(height)]
    previous: int | None = None
    for x, y in enumerate(rows):
        if y is not None:
            start = y if previous is None else previous + (y > previous) - (y < previous)
            for dot in range(min(y, start), max(y, start) + 1):
                cells[dot // 4][x // 2] |= _BRAILLE[x % 2][dot % 4]
        previous = y if columns[x][1] and x + 1 < len(columns) and columns[x + 1][1] else None
    lines = [[chr(0x2800 + cell) if cell else " " for cell in line] for line in cells]
    if mark is not None and 0 <= mark < len(values):
        x = max(-(-ends[mark] * len(columns) // ends[-1]) - 1, 0)  # where its stretch ends
        y = rows[x]
        if y is not None:
            lines[y // 4][x // 2] = "◆"
    return ["".join(line) for line in lines]


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve on one line, eight levels high; non-finite values are blank."""
    columns = [value for value, _ in _columns(values, range(1, len(values) + 1), min(width, len(values)))]
    finite = [value for value in columns if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / span)] if math.isfinite(v) else " " for v in columns)


def envelope(
    xs: Sequence[float], ys: Sequence[float], points: int = _POINTS
) -> tuple[list[float], list[float]]:
    """About `points` of a line that look like all of it: the lowest and highest of each stretch, in order."""
    if len(xs) <= points:
        return list(xs), list(ys)
    kept: list[int] = []
    stretches = points // 2
    for index in range(stretches):
        stretch = range(index * len(xs) // stretches, (index + 1) * len(xs) // stretches)
        kept += sorted({min(stretch, key=ys.__getitem__), max(stretch, key=ys.__getitem__)})
    return [xs[index] for index in kept], [ys[index] for index in kept]


def smooth(values: Sequence[float]) -> list[float]:
    """Mean over a fiftieth of the values around each, fewer at the ends."""
    half = max(len(values) // 100, 1)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    ends = [(max(index - half, 0), min(index + half + 1, len(values))) for index in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in ends]


def _draw_loss(axes: Any, history: History) -> None:
    xs, ys = _finite((step.step, step.loss) for step in history.steps)
    smoothed = _draw_line(axes, xs, ys, "training")
    scored = [e for e in history.evaluations if math.isfinite(e.loss)]
    levels = [*smoothed, *(e.loss for e in scored)]
    if scored:
        ex, ey = envelope([e.step for e in scored], [e.loss for e in scored])
        marker = "o" if len(ex) <= 60 else None
        axes.plot(ex, ey, color=_OTHER, linewidth=1.4, marker=marker, markersize=3.5, label="validation")
        # The evaluation before the first step is of the model that was given.
        best = min((e for e in scored if e.step), key=lambda e: e.loss, default=scored[0])
        what = "best" if best.step else "before training"
        label = f"{what} {best.loss:.4f} at step {best.step:,}"
        place = {"color": _MARK, "marker": "*", "markersize": 11, "linestyle": "none"}
        axes.plot([best.step], [best.loss], **place, label=label)
    if levels:
        # Single spikes may leave the chart; the level of the curve must stay readable.
        margin = 0.06 * ((max(levels) - min(levels)) or 1.0)
        axes.set_ylim(min(levels) - margin, max(levels) + margin)
    _mark_skipped(axes, history)
    axes.set_ylabel("loss (nats per target)")


def _draw_learning_rate(axes: Any, history: History) -> None:
    xs, ys = _finite((step.step, step.learning_rate) for step in history.steps)
    axes.plot(*envelope(xs, ys), color=_SMOOTH, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")


def _draw_grad_norm(axes: Any, history: History) -> None:
    xs, ys = _finite((step.step, step.grad_norm) for step in history.steps)
    _draw_line(axes, xs, ys, "gradient norm")
    limit = history.run.recipe.train.max_grad_norm
    if limit is not None:
        axes.axhline(limit, color=_OTHER, linewidth=1.2, linestyle="--", label=f"clipped to {limit:g}")
    if ys and min(ys) > 0 and max(ys) > 20 * sorted(ys)[len(ys) // 2]:
        axes.set_yscale("log")
    _mark_skipped(axes, history)
    axes.set_ylabel("gradient norm")


def _draw_speed(axes: Any, history: History) -> None:
    measured = [window.resource for window in history.windows if window.resource]
    xs, ys = _finite((resource.step, resource.tokens_per_second) for resource in measured)
    _draw_line(axes, xs, ys, "tokens/s")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens/s")


def _draw_line(axes: Any, xs: list[float], ys: list[float], label: str) -> list[float]:
    """The values faint, their moving mean strong; returns the mean."""
    smoothed = smooth(ys)
    if len(xs) > 20:
        axes.plot(*envelope(xs, ys), color=_RAW, linewidth=0.8)
        axes.plot(*envelope(xs, smoothed), color=_SMOOTH, linewidth=1.6, label=label)
    else:
        axes.plot(xs, ys, color=_SMOOTH, linewidth=1.6, marker="o", markersize=3, label=label)
    return smoothed


def _mark_skipped(axes: Any, history: History) -> None:
    skipped = [float(step.step) for step in history.steps if step.skipped]
    if skipped:
        xs, _ = envelope(skipped, skipped)
        mark = {"color": _MARK, "marker": "|", "linestyle": "none", "transform": axes.get_xaxis_transform()}
        axes.plot(xs, [0.02] * len(xs), **mark, label="skipped")


def _svg(draw: Callable[[Any, History], None], history: History) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style = {
        "svg.hashsalt": "etude", "svg.fonttype": "none", "font.size": 10, "path.simplify": False,
        "font.family": ["sans-serif"], "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#e5e5e5", "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # it reads a matplotlibrc of the current folder, which may be a stranger's
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes, history)
        for attempt in history.attempts:
            if attempt.from_step:
                axes.axvline(attempt.from_step, color="#888888", linewidth=0.9, linestyle=":")
        axes.set_xlabel("step" if len(history.attempts) < 2 else "step (dotted: restarts)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False, loc="upper right")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _finite(points: Iterator[tuple[float, float]]) -> tuple[list[float], list[float]]:
    kept = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def _columns(values: Sequence[float], ends: Sequence[int], columns: int) -> list[tuple[float, bool]]:
    """Mean of the finite values whose stretch ends in each column, and True; else the value that goes on."""
    levels = []
    for x in range(columns if values else 0):
        first, last = (bisect_right(ends, place * ends[-1] / columns) for place in (x, x + 1))
        ended = values[first:last]
        finite = [value for value in ended or [values[first]] if math.isfinite(value)]
        levels.append((sum(finite) / len(finite) if finite else math.nan, bool(ended)))
    return levels
