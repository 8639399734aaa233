"""The watch in anybody's loop."""

import json
import math
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.records.events import Finding, from_json, to_json
from etude.watch import Watcher
from etude.watch import watcher as watcher_module
from etude.watch.point import Facts, Point
from etude.watch.watcher import DETECTORS, EXPLAINS
from tests.watch.curves import Shape, change, healthy, without_extras


def test_a_healthy_curve_has_no_findings() -> None:
    watcher = Watcher(classes=100, steps=300)
    for step in range(1, 301):
        assert watcher.observe(step=step, loss=1.0 + 3.5 / step**0.3, grad_norm=1.0 + 1 / step) == []


def test_what_was_observed_after_the_step_that_a_run_goes_back_to_is_void() -> None:
    watcher = Watcher()
    for step in range(1, 6):
        watcher.observe(step=step, loss=1.0 if step < 5 else math.nan)
    assert [finding.kind for finding in watcher.findings] == ["non_finite"]
    assert watcher.observe(step=4, loss=1.0) == [] == watcher.findings
    for step in range(5, 9):
        assert watcher.observe(step=step, loss=1.0) == []


def test_unknown_figures_and_facts_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Watcher(colour="red")
    with pytest.raises(TypeError, match="colour"):
        Watcher().observe(step=1, colour="red")


def test_points_are_observations() -> None:
    one, other = Watcher(), Watcher()
    assert one.add(Point(step=3, loss=math.inf)) == other.observe(step=3, loss=math.inf) != []


@pytest.mark.parametrize("size", [3, 50, 10_000])
def test_points_that_come_together_show_what_they_show_alone(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(watcher_module, "_STRIDE", 20)
    draw = Random(5)
    points = healthy(Shape(points=300), draw)
    points = [replace(each, loss=math.nan if draw.random() < 0.02 else each.loss) for each in points]
    points[60:] = [replace(each, loss=5 * (each.loss or 0.0)) for each in points[60:]]
    points[200:200] = points[120:]  # training goes back
    one, other = Watcher(steps=300), Watcher(steps=300)
    alone = [finding for point in points for finding in one.add(point)]
    together = [
        finding for at in range(0, len(points), size) for finding in other.add(*points[at : at + size])
    ]
    assert together == alone and len({each.kind for each in alone}) > 1
    assert state(one) == state(other)


def run(points: list[Point], facts: Facts | None = None) -> Watcher:
    values = {each.name: getattr(facts, each.name) for each in fields(Facts)} if facts else {}
    watcher = Watcher(**values)
    for point in points:
        watcher.add(point)
    return watcher


def alarms(watcher: Watcher) -> list[str]:
    return [
        f"{each.kind} at {each.step}: {each.evidence}" for each in watcher.findings if each.severity != "info"
    ]


SHAPES = st.builds(
    Shape,
    points=st.sampled_from([20, 60, 200, 500]),
    stride=st.sampled_from([1, 10, 500]),
    start=st.floats(1.2, 11),
    floor=st.floats(0.3, 1.1),
    power=st.floats(0.2, 0.8),
    noise=st.floats(0.001, 0.08),
    bump=st.floats(0, 0.1),
    tail=st.floats(0, 0.15),
    epochs=st.integers(1, 3),
    step=st.floats(0, 0.3),
    restart=st.floats(0, 0.2),
    evaluations=st.sampled_from([0, 3, 10, 20]),
    error=st.floats(-0.02, 0.1),
    has_tails=st.booleans(),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SHAPES, seed=st.integers(0, 10**6), is_plain=st.booleans())
def test_healthy_curves_of_any_scale_and_noise_are_not_flagged(
    shape: Shape, seed: int, is_plain: bool
) -> None:
    points = healthy(shape, Random(seed))
    watcher = run(without_extras(points)) if is_plain else run(points, shape.facts)
    assert not alarms(watcher)


FIGURES = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -1.0, 1e308, 5e-324, 1.0, 1.0, 1.0]))
POINTS = st.builds(
    Point,
    step=st.integers(0, 500),
    **dict.fromkeys(("epoch", "loss", "grad_norm", "learning_rate", "loss_scale", "update_ratio", "seconds", "wait_seconds", "tokens_per_second", "eval_loss", "eval_error", "repeated_loss", "new_loss"), FIGURES),
    memory_bytes=st.one_of(st.none(), st.integers(-1, 2**70)),
    repeated_rows=st.one_of(st.none(), st.integers(0, 100)),
    metrics=st.dictionaries(st.sampled_from(["f1", "wer", "rows"]), st.floats()),
    skipped=st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(points=st.lists(POINTS, max_size=80), repeats=st.integers(1, 5))
def test_any_figures_whatever_are_taken_and_told_of_the_same_each_time(
    points: list[Point], repeats: int
) -> None:
    points = sorted(points * repeats, key=lambda each: each.step)
    facts = Facts(steps=100, steps_per_epoch=10, max_grad_norm=1.0, classes=10, memory_limit_bytes=2**40)
    one, other = run(points, facts), run(points, facts)
    assert list(map(repr, one.findings)) == list(map(repr, other.findings)) and one.untold() == other.untold()
    for finding in one.findings:
        assert from_json(json.loads(json.dumps(to_json(finding, 1.0), allow_nan=False))) is not None
        assert finding.kind and finding.evidence and finding.advice and "\n" not in finding.evidence


def test_a_condition_explains_its_symptoms() -> None:
    """A jump of loss and norm that stays is a spike at first, a divergence then, and nothing else."""
    points = change(
        healthy(Shape(points=600, evaluations=12), Random(1)),
        300,
        loss=lambda at, each: each.loss + 6,
        grad_norm=lambda at, each: each.grad_norm * 80,
        eval_loss=lambda at, each: each.eval_loss + 6,
    )
    watcher = run(points, Shape(points=600).facts)
    severities = [(each.kind, each.severity) for each in watcher.findings]
    assert severities == [("spike", "info"), ("divergence", "error")]
    assert len({each.step for each in watcher.findings}) == len(watcher.findings)


def test_a_condition_explains_nothing_long_after_it() -> None:
    facts = Facts(max_grad_norm=1.0)
    points = [Point(step=at, loss=math.nan if at == 1 else 1.0, grad_norm=60.0) for at in range(1, 1000)]
    assert [each.kind for each in run(points, facts).findings] == ["non_finite"]
    points = [
        Point(step=at, grad_norm=math.nan if at == 1 else 60.0 if at > 50 else 0.1) for at in range(1, 1000)
    ]
    assert [each.kind for each in run(points, facts).findings] == ["non_finite", "clip_saturation"]


def test_what_cannot_be_told_is_said_by_kind() -> None:
    watcher = run([Point(step=at, epoch=at / 3, loss=2.0 - at / 20) for at in range(1, 10)])
    untold = watcher.untold()
    assert untold["overfitting"] == "0 evaluations, 3 are needed to tell overfitting from learning"
    assert untold["stall"] == "no times of steps" and "divergence" not in untold
    assert set(untold) <= {detector.kind for detector in DETECTORS}


def test_silence_is_judged_by_the_steps_before_it() -> None:
    watcher = run([Point(step=at, loss=1.0, seconds=2.0) for at in range(1, 20)])
    finding = watcher.overdue(100)
    assert finding is not None and finding.kind == "stall" and watcher.overdue(50) is None


def test_kinds_are_distinct_and_explanations_name_kinds() -> None:
    kinds = [detector.kind for detector in DETECTORS]
    assert len(set(kinds)) == len(kinds)
    assert set(EXPLAINS).union(*EXPLAINS.values()) <= set(kinds)


@pytest.mark.parametrize("worst", [-1.0, -1e308, math.inf, -math.inf, math.nan, 10**400])
def test_figures_that_no_run_has_are_left_out(worst: float) -> None:
    names = [field.name for field in fields(Point) if field.name not in ("step", "skipped", "metrics")]
    amounts = [name for name in names if name not in ("loss", "eval_loss", "grad_norm", "epoch")]
    signed = {"repeated_loss", "new_loss"} if worst in (-1.0, -1e308) else set()
    watcher = Watcher(steps=200, steps_per_epoch=100, max_grad_norm=1.0, peak_learning_rate=1e-3)
    without = Watcher(steps=200, steps_per_epoch=100, max_grad_norm=1.0, peak_learning_rate=1e-3)
    odd: dict[str, Any] = {name: worst for name in amounts if name not in signed}
    for step in range(1, 200):
        told = watcher.observe(step=step, loss=2.0, metrics={"f1": math.nan}, **odd)
        assert told == without.observe(step=step, loss=2.0)


def state(watcher: Watcher) -> str:
    return repr((watcher.findings, watcher.untold(), watcher.overdue(1e6)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    points=st.lists(POINTS, min_size=1, max_size=60),
    shape=SHAPES,
    backs=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 60)), max_size=8),
    stride=st.sampled_from([7, 1000]),
    fault=st.sampled_from([None, 30, 90]),
)
def test_a_watcher_that_went_back_is_one_that_saw_only_what_counts(
    points: list[Point], shape: Shape, backs: list[tuple[int, int]], stride: int, fault: int | None
) -> None:
    """Any way through a curve and odd points, forth and back, against a fresh watcher of what is left."""
    curve = healthy(shape, Random(1))
    if fault:
        curve = change(curve, fault, loss=lambda at, each: each.loss + 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher_module, "_STRIDE", stride)
        watcher, left = Watcher.of(shape.facts), list[Point]()
        place = 0
        for forth, back in [*backs, (30, 0)]:
            some = [points[at % len(points)] for at in range(place, place + forth)]
            for at, odd in enumerate(some):
                point = replace(odd, step=place + at) if at % 9 == 8 else curve[(place + at) % len(curve)]
                if left and point.step < left[-1].step:
                    left = [each for each in left if each.step < point.step]
                watcher.add(point)
                left.append(point)
            place = max(place + forth - back, 0)
            if back % 2:  # else the next point tells that training went back
                step = left[max(len(left) - back, 0)].step
                watcher.rewind(step)
                left = [each for each in left if each.step <= step]
        assert state(watcher) == state(run(left, shape.facts))


def test_going_back_again_and_again_takes_no_longer_than_going_forth(monkeypatch: pytest.MonkeyPatch) -> None:
    """833 steps back in 5,000, and a way back to the start in steps of 5: counted in points taken in."""
    points = [Point(step=at, loss=2.0 + 1 / at) for at in range(1, 5_001)]
    taken = 0
    take = Watcher._take

    def count(self: Watcher, point: Point) -> list[Finding]:
        nonlocal taken
        taken += 1
        return take(self, point)

    monkeypatch.setattr(Watcher, "_take", count)
    watcher, place = Watcher(), 0
    for number in range(5_000):
        place += -1 if number % 6 == 5 else 1
        watcher.add(points[place])
    assert taken < 3 * 5_000
    taken = 0
    for step in range(place, 0, -5):
        watcher.rewind(step)
    assert taken < 20 * 5_000 and len(watcher._snapshots) < 30


def test_a_run_of_any_length_takes_bounded_memory_and_can_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "_MOST_POINTS", 500)
    monkeypatch.setattr(watcher_module, "_STRIDE", 10)
    watcher = Watcher()
    points = healthy(Shape(points=3000, evaluations=0), Random(1))
    for point in points:
        watcher.add(point)
    assert 150 < len(watcher._points) <= 500 and not watcher.findings
    watcher.rewind(points[-100].step)
    assert state(watcher) == state(run(points[:-99]))
    assert watcher.observe(step=points[-99].step, loss=math.nan)[0].kind == "non_finite"
    watcher.rewind(points[100].step)
    assert state(watcher) == state(Watcher())


def test_points_of_one_step_have_no_trend() -> None:
    watcher = Watcher(memory_limit_bytes=2**33)
    for number in range(1, 3000):
        assert watcher.observe(step=7, loss=2.0, memory_bytes=2**30 + 2**20 * number) == []
    watcher = run([Point(step=60 + (at > 60), memory_bytes=2**30 + 2**20 * at) for at in range(1, 3000)])
    assert {each.kind for each in watcher.findings} <= {"memory_creep"}
