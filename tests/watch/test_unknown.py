"""Questions that figures leave open."""

from collections.abc import Mapping

from etude.watch.point import Facts, Point
from etude.watch.unknown import list_unknown


def about(
    points: list[Point], untold: Mapping[str, str] | None = None, *, has_model: bool = True
) -> set[str]:
    return {each.about for each in list_unknown(points, Facts(), untold or {}, has_model=has_model)}


def curve(count: int, *, every: int = 1, loss: float = 2.0) -> list[Point]:
    return [Point(step=step * every, epoch=0.1, loss=loss, eval_loss=2.0) for step in range(count)]


def test_a_full_curve_leaves_nothing_open_but_its_causes() -> None:
    assert about(curve(50)) == set() and about(curve(50), has_model=False) == {"the cause of a fault"}


def test_a_bare_curve_leaves_open_what_it_lacks() -> None:
    points = [Point(step=step, loss=2.0) for step in range(0, 3000, 100)]
    assert about(points) == {"overfitting", "repeated rows", "short spikes"}
    assert about(curve(5)) == {"slow faults"}
    assert about([Point(step=step, epoch=0.1, eval_loss=2.0) for step in range(9)]) == {"training"}


def test_losses_below_zero_are_of_no_likelihood() -> None:
    assert about(curve(50, loss=-1.0)) == {"the level of the loss"}


def test_conditions_that_detectors_cannot_judge_stand_by_their_reason_and_once() -> None:
    untold = {"stall": "no times", "data_starvation": "no times", "overfitting": "too few"}
    assert about(curve(50), untold) == {"stall, data starvation", "overfitting"}
    bare = [Point(step=step, epoch=0.1, loss=2.0) for step in range(50)]
    assert about(bare, untold) == {"overfitting", "stall, data starvation"}
    assert len(list_unknown(bare, Facts(), untold, has_model=True)) == 2
