"""Charts of a run: SVG files for the report."""

import io
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from etude.records.events import Finding, Resource
from etude.report.history import History, metric_value
from etude.report.wording import metric_title, short

_WORTH_A_CURVE = 20  # values, with fewer of which a line is drawn as it is, and speed not at all
_LARGEST_DRAWN = 1e300
_POINTS = 800  # about one a pixel of the width that the charts are read at
_RAW, _SMOOTH, _OTHER, _MARK = "#9ecae1", "#1f5f99", "#d95f02", "#b30000"


def chart_svgs(history: History, findings: Mapping[str, Finding] = MappingProxyType({})) -> dict[str, bytes]:
    """SVG files by name: loss, the chosen metric, learning rate, gradient norm, speed; none before a step.

    The metric has a chart where it is not the loss, the speed where enough of it was measured. findings: by
    the names of their charts, which show the figure that they rest on; what was found before the first step
    has none. The same records give the same bytes with the same matplotlib.
    """
    if not history.steps:
        return {}
    metric = history.run.recipe.evaluate.metric
    measured = [each for each in history.evaluations if metric_value(each, metric) is not None]
    charts: dict[str, Callable[[Any, History], None] | None] = {
        "metric.svg": _draw_metric if measured and metric != "loss" else None,
        "loss.svg": _draw_loss,
        "learning_rate.svg": _draw_learning_rate,
        "grad_norm.svg": _draw_grad_norm,
        "speed.svg": _draw_speed if len(history.windows) >= _WORTH_A_CURVE else None,
        **{name: partial(_draw_finding, finding=each) for name, each in findings.items() if each.step},
    }
    # matplotlib reads and writes its list of fonts in the encoding of the locale.
    with warnings.catch_warnings(action="ignore", category=EncodingWarning):
        return {name: _svg(draw, history) for name, draw in charts.items() if draw}


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
    """Mean over a fiftieth of the values around each, but eleven or a tenth of few; fewer at the ends."""
    half = max(len(values) // 100, min(len(values) // 20, 5), 1)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    ends = [(max(index - half, 0), min(index + half + 1, len(values))) for index in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in ends]


def _draw_loss(axes: Any, history: History) -> None:
    xs, ys = _finite((step.step, step.loss) for step in history.steps)
    _draw_line(axes, xs, ys, "training")
    levels = _middle(ys) + _start(ys)
    scored = [each for each in history.evaluations if is_drawn(each.loss)]
    if scored:
        _draw_validation(axes, [each.step for each in scored], [each.loss for each in scored], "validation")
        levels += [each.loss for each in scored]
    if (best := history.best) and is_drawn(best.loss):
        metric = history.run.recipe.evaluate.metric
        by = "" if metric == "loss" else f" by {_title(metric)}"
        label = f"best checkpoint{by}: {short(best.loss)} at step {best.step:,}"
        _draw_star(axes, best.step, best.loss, label + (_worse(history) if metric == "loss" else ""))
    if levels:
        # Single spikes may leave the chart; the level of the curve must stay readable.
        margin = 0.08 * ((max(levels) - min(levels)) or 1.0)
        axes.set_ylim(min(levels) - margin, max(levels) + margin)
    _mark_skipped(axes, history)
    axes.set_ylabel("loss (nats per target)")


def _draw_metric(axes: Any, history: History) -> None:
    metric = history.run.recipe.evaluate.metric
    found = [(each.step, metric_value(each, metric)) for each in history.evaluations]
    xs, ys = _finite((step, value) for step, value in found if value is not None)
    title = _title(metric)
    _draw_validation(axes, xs, ys, f"{title} on validation samples")
    if xs and not xs[0] and len(xs) > 1:
        axes.axhline(ys[0], color="#888888", linewidth=1.0, linestyle=":", label="before training")
    best = history.best
    if best and best.step in xs:
        value = ys[xs.index(best.step)]
        label = f"best checkpoint: {short(value)} at step {best.step:,}"
        _draw_star(axes, best.step, value, label + _worse(history))
    axes.margins(y=0.08)
    axes.set_ylabel(title)


def _title(metric: str) -> str:
    """A metric in words that matplotlib draws as they are, and not as a formula."""
    return metric_title(metric).replace("$", r"\$")


def _draw_finding(axes: Any, history: History, *, finding: Finding) -> None:
    """The figure that a finding rests on, with the steps of its window shaded."""
    first, last = (finding.window or [finding.step, finding.step])[:2]
    around = max(last - first, 20)
    start, end = first - 2 * around, last + around

    def near(points: Iterable[tuple[int, float]]) -> tuple[list[float], list[float]]:
        return _finite((step, value) for step, value in points if start <= step <= end)

    other = _RESTS_ON.get(finding.kind)
    title, values = other or ("loss (nats per target)", _losses)
    xs, ys = near(values(history))
    axes.plot(*envelope(xs, ys), color=_SMOOTH, linewidth=1.2, label=title if other else "training")
    levels = _middle(ys) + [y for x, y in zip(xs, ys) if first <= x <= last]
    at, losses = near((each.step, each.loss) for each in history.evaluations)
    if at and not other:
        _draw_validation(axes, at, losses, "validation")
        levels += losses
    limit = history.run.recipe.train.max_grad_norm
    if finding.kind == "clip_saturation" and limit is not None:
        axes.axhline(limit, color=_OTHER, linewidth=1.2, linestyle="--", label=f"clipped to {limit:g}")
        levels.append(limit)
    axes.axvspan(first - 0.5, last + 0.5, color=_MARK, alpha=0.12, label=finding.kind.replace("_", " "))
    if levels:
        margin = 0.08 * ((max(levels) - min(levels)) or 1.0)
        axes.set_ylim(min(levels) - margin, max(levels) + margin)
    axes.set_ylabel(title)


def _losses(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.loss) for each in history.steps)


def _norms(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.grad_norm) for each in history.steps)


def _rates(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.learning_rate) for each in history.steps)


def _seconds(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.seconds) for each in history.steps)


def _waits(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.wait_seconds / max(each.seconds, 1e-9)) for each in history.steps)


def _speeds(history: History) -> Iterator[tuple[int, float]]:
    return ((each.step, each.tokens_per_second) for each in history.events(Resource))


def _memory(history: History) -> Iterator[tuple[int, float]]:
    """Memory in use in GB: of the GPU, or of the process where there is none."""
    for each in history.events(Resource):
        used = each.rss_bytes if each.gpu_memory_bytes is None else each.gpu_memory_bytes
        yield each.step, used / 1e9


# Kinds of findings that rest on another figure than the loss: title of its axis, and its values by step.
_RESTS_ON: dict[str, tuple[str, Callable[[History], Iterator[tuple[int, float]]]]] = {
    "clip_saturation": ("gradient norm", _norms),
    "dead_learning_rate": ("learning rate", _rates),
    "data_starvation": ("share of waiting", _waits),
    "stall": ("seconds a step", _seconds),
    "slowdown": ("tokens/s", _speeds),
    "memory_creep": ("memory (GB)", _memory),
}


def _draw_validation(axes: Any, xs: Sequence[float], ys: Sequence[float], label: str) -> None:
    xs, ys = envelope(xs, ys)
    marker = "o" if len(xs) <= 60 else None
    axes.plot(xs, ys, color=_OTHER, linewidth=1.6, marker=marker, markersize=4, label=label)


def _worse(history: History) -> str:
    """A word on a best checkpoint that is worse than the model before training."""
    return " (worse)" if history.is_best_worse else ""


def _draw_star(axes: Any, x: float, y: float, label: str) -> None:
    """The kept checkpoint at its own value, over all lines and never cut by the edge."""
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.8, "clip_on": False, "zorder": 5}
    axes.plot([x], [y], color=_MARK, marker="*", markersize=13, linestyle="none", label=label, **edge)


def _middle(values: Sequence[float]) -> list[float]:
    """The second and the 98th percentile, between which noise is shown whole; of few values all."""
    if len(values) <= _WORTH_A_CURVE:
        return list(values)
    ordered = sorted(values)
    return [ordered[len(ordered) // 50], ordered[-1 - len(ordered) // 50]]


def _start(values: Sequence[float]) -> list[float]:
    """The level that a curve begins at: the median of its first fiftieth, which no single spike moves."""
    return [statistics.median(values[: max(len(values) // 50, 1)])] if values else []


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
        # The powers of a log axis are set as mathematics, in fonts that some installations lack.
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    _mark_skipped(axes, history)
    axes.set_ylabel("gradient norm")


def _draw_speed(axes: Any, history: History) -> None:
    measured = [window.resource for window in history.windows if window.resource]
    xs, ys = _finite((resource.step, resource.tokens_per_second) for resource in measured)
    _draw_line(axes, xs, ys, "tokens/s")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("tokens/s")


def _draw_line(axes: Any, xs: list[float], ys: list[float], label: str) -> None:
    """The values faint, their moving mean strong."""
    if len(xs) > _WORTH_A_CURVE:
        axes.plot(*envelope(xs, ys), color=_RAW, linewidth=0.8)
        axes.plot(*envelope(xs, smooth(ys)), color=_SMOOTH, linewidth=1.6, label=label)
    else:
        axes.plot(xs, ys, color=_SMOOTH, linewidth=1.6, marker="o", markersize=3, label=label)


def _mark_skipped(axes: Any, history: History) -> None:
    skipped = [float(step.step) for step in history.steps if step.skipped]
    if skipped:
        xs, _ = envelope(skipped, skipped)
        mark = {"color": _MARK, "marker": "|", "linestyle": "none", "transform": axes.get_xaxis_transform()}
        axes.plot(xs, [0.02] * len(xs), **mark, label="skipped")


def draw_svg(draw: Callable[[Any, Any], None], *, width: float = 8, height: float) -> bytes:
    """An SVG file of a figure that `draw` fills, given it and its axes, in the style of all charts.

    width, height: in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "etude", "svg.fonttype": "none", "font.size": 10, "path.simplify": False,
        "font.family": ["sans-serif"], "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#e5e5e5", "axes.axisbelow": True,
    }  # fmt: skip
    # Ticks of figures near the largest float overflow, and are left out. matplotlib reads and writes its list
    # of fonts in the encoding of the locale.
    with (
        matplotlib.rc_context(),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
        warnings.catch_warnings(action="ignore", category=EncodingWarning),
    ):
        matplotlib.rcdefaults()  # it reads a matplotlibrc of the current folder, which may be a stranger's
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _svg(draw: Callable[[Any, History], None], history: History) -> bytes:
    def fill(figure: Any, axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        draw(axes, history)
        axes.set_xlabel(_mark_events(axes, history))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if len(axes.get_legend_handles_labels()[0]) > 1:
            figure.legend(frameon=False, loc="outside upper left", ncols=4, handletextpad=0.5)

    return draw_svg(fill, height=3.6 if draw in _MAIN else 2.4)


def _mark_events(axes: Any, history: History) -> str:
    """Mark restarts and changes of the recipe, and give the title of the axis, which names them."""
    restarts = [attempt.from_step for attempt in history.attempts if attempt.from_step]
    changes = [step for step, *_ in history.changes if step]
    for step in {*restarts, *changes}:
        axes.axvline(step, color="#888888", linewidth=0.9, linestyle=":")
    done, planned = history.steps[-1].step, history.attempts[-1].steps if history.attempts else None
    notes = [f"{done:,} of {planned:,} made"] if planned and done < planned else []
    dotted = [name for name, steps in (("restarts", restarts), ("changes", changes)) if steps]
    notes += [f"dotted: {' and '.join(dotted)}"] if dotted else []
    return f"step ({'; '.join(notes)})" if notes else "step"


_MAIN = (_draw_metric, _draw_loss)


def is_drawn(value: float) -> bool:
    """True for a finite figure that leaves room for the margins of an axis."""
    return abs(value) < _LARGEST_DRAWN


def _finite(points: Iterator[tuple[float, float]]) -> tuple[list[float], list[float]]:
    kept = [(float(x), float(y)) for x, y in points if is_drawn(y)]
    return [x for x, _ in kept], [y for _, y in kept]
