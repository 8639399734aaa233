"""Questions that figures leave open."""

from etude.watch.point import Facts, Point
from etude.watch.unknown import list_unknown


def about(points: list[Point], facts: Facts = Facts(), *, has_model: bool = False) -> set[str]:  # noqa: B008 - frozen
    return {each.about for each in list_unknown(points, facts, has_model=has_model)}


def full(step: int) -> Point:
    held = 2.0 if step % 10 == 0 else None
    return Point(
        step=step, epoch=step / 100, loss=2.0, grad_norm=1.0, learning_rate=0.1, seconds=1.0, memory_bytes=9,
        eval_loss=held, eval_error=held and 0.1,
    )  # fmt: skip


def test_a_run_with_all_figures_and_its_model_leaves_nothing_open() -> None:
    points = [full(step) for step in range(1, 101)]
    assert about(points, Facts(classes=100), has_model=True) == set()
    assert about(points, Facts(classes=100)) == {"the cause of a fault"}


def test_a_bare_curve_leaves_open_what_it_lacks() -> None:
    assert about([Point(step=step, loss=2.0) for step in range(0, 3000, 100)]) == {
        "overfitting", "gradients", "the learning rate", "repeated rows", "the first loss", "speed", "memory",
        "short spikes", "the cause of a fault",
    }  # fmt: skip


def test_overfitting_needs_a_validation_loss_at_three_evaluations() -> None:
    for count, is_open in ((0, True), (2, True), (3, False)):
        points = [
            Point(step=step, loss=2.0, eval_loss=2.0 if step <= count else None) for step in range(1, 50)
        ]
        assert ("overfitting" in about(points)) == is_open


def test_losses_below_zero_are_of_no_likelihood() -> None:
    assert "the level of the loss" in about([Point(step=step, loss=-1.0) for step in range(50)])
    assert "the level of the loss" not in about([Point(step=step, loss=1.0) for step in range(50)])


def test_evaluations_alone_tell_nothing_of_training() -> None:
    assert "training" in about([Point(step=step, eval_loss=2.0) for step in range(9)])
