"""A loss that rests at the entropy of its targets, and those that pass it."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.recipe.schema import Recipe
from etude.records.events import DataUsed, Finding
from etude.run import run_recipe
from etude.start import Options
from etude.watch.detectors.frequencies import OnlyFrequencies
from etude.watch.point import Facts, Point

LEVEL = 4.3


def observe(
    loss: Callable[[int], float], steps: int = 400, *, rate: float = 1e-2, stride: int = 1, noise: float = 0.1
) -> list[Finding]:
    draw = random.Random(17)
    detector = OnlyFrequencies(Facts(frequencies_loss=LEVEL, steps=steps, peak_learning_rate=1e-2))
    points = (
        Point(step=step, loss=loss(step) + draw.gauss(0, noise), learning_rate=rate)
        for step in range(1, steps + 1, stride)
    )
    return [found for point in points if (found := detector.observe(point))]


def test_a_loss_that_rests_there_is_named_once_within_three_blocks() -> None:
    (found,) = observe(lambda step: LEVEL + 1.5 * math.exp(-step / 10))
    assert found.step <= 110 and found.changes == {"optim.learning_rate": pytest.approx(1e-3)}
    assert found.window is not None and found.window[0] < found.window[1] == found.step
    assert len(observe(lambda step: LEVEL + 0.3, stride=4)) == 1


@pytest.mark.parametrize("end", [0.5, 0.9, 0.95])
def test_a_loss_that_goes_below_it_is_no_fault(end: float) -> None:
    assert observe(lambda step: LEVEL * (end + (1.4 - end) * math.exp(-step / 30))) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_that_still_falls_is_no_fault(seed: int) -> None:
    assert observe(lambda step: 9.0 - 4.0 * (step + seed) / 410) == []


def test_a_loss_that_falls_slowly_to_it_is_no_rest() -> None:
    """The fall is 1 % a block; before the loss passes the frequencies that is usual."""
    assert observe(lambda step: LEVEL + 0.4 - 0.002 * step, steps=200, noise=0.05) == []


@pytest.mark.parametrize(("fall", "count"), [(0.0, 1), (0.005, 1), (0.05, 0)])
def test_validation_that_gets_better_beyond_its_errors_is_no_rest(fall: float, count: int) -> None:
    """Training noise hides the fall; evaluations of fixed rows show it."""
    draw = random.Random(17)
    detector = OnlyFrequencies(Facts(frequencies_loss=LEVEL, steps=200, peak_learning_rate=1e-2))
    found = []
    for step in range(1, 201):
        found.append(
            detector.observe(Point(step=step, loss=LEVEL + draw.gauss(0.02, 0.1), learning_rate=1e-2))
        )
        if step % 20 == 0:
            evaluated = Point(step=step, eval_loss=LEVEL + 0.5 - fall * step / 20, eval_error=0.01)
            found.append(detector.observe(evaluated))
    steps = [each.step for each in found if each]
    assert len(steps) == count and all(step % 20 == 0 for step in steps)  # an evaluation confirms it


def test_warm_up_and_the_end_of_a_schedule_are_not_judged() -> None:
    assert observe(lambda step: LEVEL + 0.1, rate=5e-4) == []


def test_without_the_frequencies_nothing_is_said() -> None:
    detector = OnlyFrequencies(Facts())
    assert not any(detector.observe(Point(step=step, loss=4.0)) for step in range(1, 300))


def test_a_run_of_a_rate_far_too_high_is_named_and_its_healthy_twin_is_not(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    kinds = {}
    for rate in (3e-3, 1.0):
        recipe = make_recipe(
            {
                "optim.learning_rate": rate,
                "schedule.kind": "constant",
                "train.steps": 240,
                "evaluate.every_steps": 120,
            }
        )
        run = run_recipe(recipe, Options(runs=tmp_path / str(rate))).run
        events = [entry.event for entry in run.ledger().entries]
        kinds[rate] = {each.kind for each in events if isinstance(each, Finding)}
        (data,) = [each for each in events if isinstance(each, DataUsed)]
        assert data.entropy is not None and 2 < data.entropy < math.log(300)
    assert "only_frequencies" in kinds[1.0] and "only_frequencies" not in kinds[3e-3], kinds
