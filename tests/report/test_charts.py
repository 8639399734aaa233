import math
import xml.etree.ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from etude.records.events import Finding, Step
from etude.records.store import Run
from etude.report.charts import (
    _draw_loss,
    _draw_metric,
    chart_svgs,
    envelope,
    smooth,
)
from etude.report.history import History, read_history
from etude.report.wording import metric_title
from tests import misleading as runs
from tests.report.runs import attempt, evaluation, finished_run, new_run, window

Get = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("drawn")


def test_the_same_journal_gives_the_same_charts(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    charts = chart_svgs(read_history(run))
    assert charts == chart_svgs(read_history(run))
    assert set(charts) == {"loss.svg", "learning_rate.svg", "grad_norm.svg"}
    for svg in charts.values():
        assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"best checkpoint: 2.50 at step 20" in charts["loss.svg"]
    assert b"clipped to 1" in charts["grad_norm.svg"]


def axes_of(draw: Callable[[Any, History], None], run: Run) -> Any:
    """The axes that a chart is drawn on, without their picture."""
    axes = Figure().add_subplot()
    draw(axes, read_history(run))
    return axes


def test_the_star_stands_on_the_checkpoint_that_is_kept_at_its_own_value(misleading: Get) -> None:
    run = misleading(runs.worse_than_before)
    kept = next(each for each in read_history(run).evaluations if each.step == run.best["step"])
    for draw, value in ((_draw_metric, kept.metrics["f1"]), (_draw_loss, kept.loss)):
        (star,) = [line for line in axes_of(draw, run).lines if line.get_marker() == "*"]
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (run.best["step"], value)
    svg = chart_svgs(read_history(run))["metric.svg"]
    assert b"before training" in svg and b"best checkpoint: 0." in svg


def test_validation_is_a_line_of_its_own_and_the_axis_holds_it_and_the_noise(misleading: Get) -> None:
    run = misleading(runs.memorised)
    axes, history = axes_of(_draw_loss, run), read_history(run)
    (line,) = [line for line in axes.lines if line.get_label() == "validation"]
    assert list(line.get_ydata()) == [each.loss for each in history.evaluations]
    low, high = axes.get_ylim()
    inside = [low <= step.loss <= high for step in history.steps]
    assert low < min(line.get_ydata()) and max(line.get_ydata()) < high
    assert sum(inside) >= 0.95 * len(inside)


@pytest.mark.parametrize("name", ["$x^$", "$", r"\\$a$ $\frac{", "a\x1b[31m\x00\u202eb", "<b>&", "x" * 5000])
def test_a_metric_of_any_name_is_drawn_as_it_is(name: str, tmp_path: Path) -> None:
    writer = new_run(tmp_path, {"evaluate.metric": name})
    scored = replace(evaluation(5, 2.0), metrics={name: 0.5})
    writer.append(attempt(), *window(1, 5), scored)
    writer.close("finished")
    for svg in chart_svgs(read_history(writer.run)).values():
        texts = " ".join(xml.etree.ElementTree.fromstring(svg).itertext())
        assert name.startswith("x") or "best checkpoint" not in texts or metric_title(name) in texts


def test_one_wild_step_does_not_set_the_axis(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    first, *others = window(1, 200)
    writer.append(attempt(), first._replace(loss=400.0), *others)
    writer.close("finished")
    assert axes_of(_draw_loss, writer.run).get_ylim()[1] < 10


def test_the_axis_begins_where_a_long_curve_begins(tmp_path: Path) -> None:
    writer = new_run(tmp_path, {"train.steps": 600})
    losses = [3 + 3 * 0.97**step for step in range(600)]
    steps = [step for step in window(1, 600) if isinstance(step, Step)]
    writer.append(attempt(steps=600), *(step._replace(loss=loss) for step, loss in zip(steps, losses)))
    low, high = axes_of(_draw_loss, writer.run).get_ylim()
    assert low < losses[-1] and high > losses[6]


def test_a_logarithmic_axis_is_written_in_plain_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_run(tmp_path)
    first, *others = window(1, 40)
    writer.append(attempt(), first._replace(grad_norm=300.0), *others)
    # Of an installation that lacks the fonts of mathematics, each one is a warning on the user's terminal.
    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", None)
    assert b">100<" in chart_svgs(read_history(writer.run))["grad_norm.svg"]


def test_speed_is_drawn_where_it_makes_a_curve(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *(each for n in range(20) for each in window(5 * n + 1, 5 * n + 5)))
    writer.close("finished")
    assert "speed.svg" in chart_svgs(read_history(writer.run))


def test_a_long_run_makes_small_charts(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 6_000, bad=tuple(range(5, 6_000, 7))), evaluation(6_000, 2.0))
    writer.close("finished")
    assert max(len(svg) for svg in chart_svgs(read_history(writer.run)).values()) < 300_000


def test_steps_that_were_all_skipped_draw(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 3, bad=(1, 2, 3)))
    writer.close("failed")
    assert b"skipped" in chart_svgs(read_history(writer.run))["loss.svg"]


def test_an_envelope_keeps_the_extremes() -> None:
    ys = [math.sin(x / 50) for x in range(10_000)]
    ys[4321] = 50.0
    xs, kept = envelope(range(10_000), ys, 100)
    assert len(xs) <= 100 and (max(kept), min(kept)) == (50.0, min(ys))
    assert xs == sorted(xs) and xs[kept.index(50.0)] == 4321


def test_a_moving_mean_is_the_mean_of_its_neighbours() -> None:
    assert smooth([0.0, 3.0, 6.0, 0.0]) == [1.5, 3.0, 3.0, 3.0]
    assert smooth([]) == []
    assert smooth([float(n % 2) for n in range(200)])[100] == pytest.approx(6 / 11)


def test_the_axis_tells_of_changes_of_the_recipe_and_of_steps_that_are_missing(misleading: Get) -> None:
    assert "step (dotted: changes)" in chart_svgs(read_history(misleading(runs.bad_end)))["loss.svg"].decode()
    assert (
        "step (10 of 20 made)"
        in chart_svgs(read_history(misleading(runs.killed_at_half)))["loss.svg"].decode()
    )
    run = misleading(runs.worse_than_before)
    metric, best = chart_svgs(read_history(run))["metric.svg"].decode(), run.best
    assert f"best checkpoint: {best['value']:.3f} at step {best['step']} (worse)" in metric


def test_figures_near_the_largest_float_leave_the_others_drawn(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    steps = [step._replace(loss=1.7e308, grad_norm=1.7e308) for step in window(1, 2)[:2]]
    writer.append(
        attempt(), *steps, evaluation(2, 700.0), *window(3, 5), replace(evaluation(5, 2.0), loss=-1.7e308)
    )
    writer.close("finished")
    assert {"loss.svg", "grad_norm.svg"} <= chart_svgs(read_history(writer.run)).keys()


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("divergence", "loss (nats per target)"), ("clip_saturation", "gradient norm"),
        ("dead_learning_rate", "learning rate"), ("data_starvation", "share of waiting"),
        ("stall", "seconds a step"), ("slowdown", "tokens/s"), ("memory_creep", "memory (GB)"),
    ],
)  # fmt: skip
def test_the_chart_of_a_finding_shows_the_figure_that_it_rests_on(
    tmp_path: Path, kind: str, title: str
) -> None:
    history = read_history(finished_run(tmp_path))
    finding = Finding(10, "x", "y", "z", window=[5, 10], kind=kind)
    drawn = xml.etree.ElementTree.fromstring(chart_svgs(history, {"finding.svg": finding})["finding.svg"])
    texts = {each.text for each in drawn.iter() if each.tag.endswith("text")}
    assert title in texts and kind.replace("_", " ") in texts and ("validation" in texts) == ("loss" in title)
    early = replace(finding, step=0, window=[0, 0])
    assert "finding.svg" not in chart_svgs(history, {"finding.svg": early})
