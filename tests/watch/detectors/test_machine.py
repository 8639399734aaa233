"""Time and memory of a run."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from etude.records.events import Finding
from etude.watch.detectors.machine import MemoryCreep, Slowdown, Stall, Starvation
from etude.watch.point import Facts, Point

Detector = MemoryCreep | Slowdown | Stall | Starvation
GIB = 2**30


def run(detector: Detector, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


def rates(before: float, after: float, noise: float = 0.03, seed: int = 0) -> list[Point]:
    random = Random(seed)
    return [
        Point(
            step=10 * at, tokens_per_second=(before if at < 100 else after) * math.exp(random.gauss(0, noise))
        )
        for at in range(1, 300)
    ]


@pytest.mark.parametrize(("drop", "severity"), [(0.12, "info"), (0.5, "warning")])
def test_a_drop_of_speed_is_found_within_twenty_points(drop: float, severity: str) -> None:
    for seed in range(20):
        found = run(Slowdown(Facts()), rates(1e4, 1e4 * (1 - drop), seed=seed))
        assert len(found) == 1 and 1000 <= found[0].step <= 1200
        assert found[0].severity == severity or abs(drop - 0.25) < 0.05
        assert "tokens/s" in found[0].evidence


def test_noise_and_faster_steps_are_no_drop() -> None:
    for seed in range(20):
        assert not run(Slowdown(Facts()), rates(1e4, 1e4, 0.1, seed)) + run(
            Slowdown(Facts()), rates(1e4, 2e4)
        )


def test_steps_per_second_count_where_no_tokens_are_known() -> None:
    points = [Point(step=at, loss=1.0, seconds=5.0 if at < 200 else 10.0) for at in range(1, 400)]
    (finding,) = run(Slowdown(Facts()), points)
    assert "steps/s" in finding.evidence and "50% less" in finding.evidence and 200 < finding.step <= 220
    assert not run(
        Slowdown(Facts()), [replace(point, seconds=(point.seconds or 0) / 1000) for point in points]
    )


def test_steps_that_wait_for_data_are_found_after_fifty() -> None:
    points = [Point(step=at, seconds=1.0, wait_seconds=0.0 if at < 200 else 0.5) for at in range(1, 400)]
    (finding,) = run(Starvation(Facts()), points)
    assert 200 < finding.step <= 250 and "20% of the time of the last 50 steps" in finding.evidence
    start = [Point(step=at, seconds=1.0, wait_seconds=0.9 if at <= 10 else 0.1) for at in range(1, 400)]
    assert not run(Starvation(Facts()), start)


def test_waits_count_from_two_seconds_on() -> None:
    def waits(steps: int) -> list[Point]:
        return [Point(step=at, seconds=0.03, wait_seconds=0.02) for at in range(1, steps)]

    assert not run(Starvation(Facts()), waits(105))
    (finding,) = run(Starvation(Facts()), waits(400))
    assert finding.step == 110 and finding.evidence.endswith("went by waiting; 2 s since step 10")
    pauses = [Point(step=at, seconds=0.03, wait_seconds=0.02 * (at % 100 < 40)) for at in range(1, 2000)]
    assert not run(Starvation(Facts()), pauses)


def test_memory_that_grows_tells_the_step_at_which_it_ends() -> None:
    random = Random(1)
    points = [
        Point(step=at, memory_bytes=8 * GIB + at * 2**20 + random.randrange(2**22))
        for at in range(10, 2001, 10)
    ]
    facts = Facts(steps=20_000, memory_limit_bytes=16 * GIB)
    (finding,) = run(MemoryCreep(facts), points)
    assert finding.severity == "warning" and 290 <= finding.step <= 600
    end = int(finding.evidence.split("full at step ")[1].split(" ")[0].replace(",", ""))
    assert end == pytest.approx(8 * 1024, rel=0.03)
    (finding,) = run(MemoryCreep(Facts(steps=2000, memory_limit_bytes=16 * GIB)), points)
    assert finding.severity == "info" and "after the last, 2,000" in finding.evidence


@pytest.mark.parametrize(("every", "latest"), [(5, 145), (10, 200)])
@pytest.mark.parametrize("mib", [2, 8])
def test_a_short_run_is_told_of_memory_that_grows(every: int, latest: int, mib: int) -> None:
    points = [
        Point(step=at, memory_bytes=GIB // 2 + max(at - 80, 0) * mib * 2**20)
        for at in range(every, 201, every)
    ]
    (finding,) = run(MemoryCreep(Facts(steps=200, memory_limit_bytes=24 * GIB)), points)
    assert finding.severity == "warning" and 80 < finding.step <= latest
    assert f"{mib} MiB a step; 24.0 GiB will be full at step" in finding.evidence
    assert "after the last, 200" in finding.evidence


def test_little_growth_is_a_remark_and_a_warning_once_it_is_much() -> None:
    points = [Point(step=at, memory_bytes=GIB + round(1.0006**at * GIB)) for at in range(10, 2001, 10)]
    found = run(MemoryCreep(Facts(steps=2000, memory_limit_bytes=64 * GIB)), points)
    assert [each.severity for each in found] == ["info", "warning"]
    tiny = [Point(step=at, memory_bytes=GIB // 4 + at * 2**10) for at in range(10, 2001, 10)]
    assert not run(MemoryCreep(Facts(steps=2000, memory_limit_bytes=64 * GIB)), tiny)


def warms_up(at: int, random: Random) -> float:
    return 1 - 0.5 * math.exp(-at / 40)


def has_the_longest_so_far(at: int, random: Random) -> float:
    return 1 + 0.05 * math.log(at) + random.gauss(0, 0.002)


def climbs_two_stairs(at: int, random: Random) -> float:
    return 1 + 0.1 * min(at // 100, 2) + random.gauss(0, 0.002)


def is_noisy(at: int, random: Random) -> float:
    return 1 + random.gauss(0, 0.1)


@pytest.mark.parametrize("shape", [warms_up, has_the_longest_so_far, climbs_two_stairs, is_noisy])
@pytest.mark.parametrize(("every", "steps"), [(1, 200), (5, 200), (10, 400), (10, 2000), (50, 10_000)])
def test_memory_that_rises_in_other_ways_is_no_creep(
    shape: Callable[[int, Random], float], every: int, steps: int
) -> None:
    facts = Facts(steps=steps, memory_limit_bytes=24 * GIB)
    for seed in range(12):
        random = Random(seed)
        points = [
            Point(step=at, memory_bytes=round(GIB * shape(at, random)))
            for at in range(every, steps + 1, every)
        ]
        found = run(MemoryCreep(facts), points)
        assert not [each for each in found if each.severity != "info"]


@pytest.mark.parametrize("at_step", range(50, 700, 37))
def test_a_single_rise_is_no_creep(at_step: int) -> None:
    random = Random(at_step)
    points = [
        Point(step=at, memory_bytes=8 * GIB + (GIB if at > at_step else 0) + random.randrange(2**24))
        for at in range(1, 2000)
    ]
    assert not run(MemoryCreep(Facts()), points)


def test_a_step_that_hangs_is_told_while_it_hangs_and_after_it() -> None:
    stall = Stall(Facts())
    assert not run(stall, [Point(step=at, seconds=3.0) for at in range(1, 30)])
    assert stall.overdue(59) is None
    overdue = stall.overdue(75)
    assert overdue is not None and "nothing after step 29 for 75 s, where 3 s are usual" in overdue.evidence
    (finding,) = run(stall, [Point(step=30, seconds=90.0)])
    assert "step 30 took 90 s" in finding.evidence
    slow = Stall(Facts())
    assert not run(slow, [Point(step=at, seconds=20.0) for at in range(1, 30)])
    assert slow.overdue(190) is None and slow.overdue(210) is not None


def test_each_says_what_it_lacks() -> None:
    for detector in (MemoryCreep(Facts()), Slowdown(Facts()), Stall(Facts()), Starvation(Facts())):
        assert not run(detector, [Point(step=at, loss=1.0) for at in range(1, 50)])
        assert str(detector.untold()).startswith("no ")


@pytest.mark.parametrize("pause", [20, 60, 200])
def test_a_mean_since_the_start_that_recovers_from_evaluations_is_no_drop(pause: float) -> None:
    """A speed monitor that divides all tokens so far by all seconds, those of evaluations among them."""
    seconds, points = 0.0, []
    for step in range(1, 600):
        seconds += 1 + (pause if step % 100 == 0 else 0)
        points.append(Point(step=step, tokens_per_second=1e4 * step / seconds))
    assert not run(Slowdown(Facts()), points)


def test_steps_that_are_slow_after_each_evaluation_are_no_drop() -> None:
    random = Random(3)
    for every in (20, 50):
        points = [
            Point(
                step=step,
                tokens_per_second=(2e3 if step % every == 1 else 1e4) * math.exp(random.gauss(0, 0.02)),
            )
            for step in range(1, 600)
        ]
        assert not run(Slowdown(Facts()), points)
