"""Validation losses that rise."""

from random import Random

import pytest

from etude.records.events import Finding
from etude.watch.detectors.unseen import Overfitting, ValidationRise
from etude.watch.point import Facts, Point

Detector = Overfitting | ValidationRise


def run(detector: Detector, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


def epochs(
    train: list[float], unseen: list[float], error: float | None = None, first: float = 1.0
) -> list[Point]:
    """Ten training points and an evaluation in each epoch."""
    points = []
    for number, (loss, eval_loss) in enumerate(zip(train, unseen)):
        step, epoch = 100 * (number + 1), first * (number + 1)
        points += [Point(step=step - 90 + 10 * at, epoch=epoch, loss=loss) for at in range(10)]
        points.append(Point(step=step, epoch=epoch, eval_loss=eval_loss, eval_error=error))
    return points


TRAIN = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25]


def test_a_gap_that_grows_is_found_at_the_second_evaluation_after_the_rise_began() -> None:
    (finding,) = run(Overfitting(Facts()), epochs(TRAIN, [1.0, 0.9, 0.97, 1.1, 1.2, 1.3, 1.4], error=0.02))
    assert finding.step == 400 and finding.window == [200, 400] and finding.changes == {"train.epochs": 2}
    assert "validation loss 0.9 at step 200, 1.1 at step 400 (standard error 0.02)" in finding.evidence
    assert "training loss 0.8 then, 0.5 now: the gap went from +0.1 to +0.6" in finding.evidence


def test_a_rise_within_two_standard_errors_is_none() -> None:
    assert not run(Overfitting(Facts()), epochs(TRAIN, [1.0, 0.9, 0.95, 0.97, 0.98, 0.97, 0.98], error=0.05))


def test_without_standard_errors_it_takes_a_tenth() -> None:
    detector = Overfitting(Facts())
    assert not run(detector, epochs(TRAIN, [1.0, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97]))
    assert (
        detector.untold()
        == "validation loss is 8% above its best, which says nothing without standard errors"
    )
    (finding,) = run(Overfitting(Facts()), epochs(TRAIN, [1.0, 0.9, 0.92, 0.95, 1.0, 1.05, 1.1]))
    assert finding.step == 600 and "standard error" not in finding.evidence


@pytest.mark.parametrize("error", [None, 0.01])
def test_it_is_never_told_from_training_loss_alone_nor_in_the_first_epoch(error: float | None) -> None:
    points = epochs(TRAIN, [1.0, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8], error, first=0.1)
    assert not run(Overfitting(Facts()), points)
    detector = Overfitting(Facts())
    assert not run(detector, [Point(step=at, epoch=at / 10, loss=4 * 0.8**at) for at in range(1, 60)])
    assert detector.untold() == "0 evaluations, 3 are needed to tell overfitting from learning"


def test_a_rise_while_training_loss_stands_still_or_in_the_first_epoch_has_another_name() -> None:
    rising = [1.0, 0.9, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert not run(Overfitting(Facts()), epochs([1.0] * 7, rising))
    (finding,) = run(ValidationRise(Facts()), epochs([1.0] * 7, rising))
    assert finding.kind == "validation_rise" and finding.step == 500
    (finding,) = run(ValidationRise(Facts()), epochs(TRAIN, rising, first=0.1))
    assert "in the first epoch" in finding.evidence and not finding.changes
    assert not run(ValidationRise(Facts()), epochs(TRAIN, rising))


def test_a_pretrained_model_that_gets_worse_asks_for_a_lower_rate() -> None:
    """No training loss belongs to the evaluation before training, and none is told of it."""
    points = [
        Point(step=step, epoch=step / 1000, eval_loss=loss, eval_error=0.02)
        for step, loss in ((0, 3.45), (50, 4.5), (100, 4.2))
    ]
    facts = Facts(is_pretrained=True, peak_learning_rate=0.02)
    (finding,) = run(ValidationRise(facts), points)
    assert finding.changes == {"optim.learning_rate": 0.006} and finding.window == [0, 100]
    assert "nan" not in finding.evidence and "training loss" not in finding.evidence


def test_epochs_come_from_the_facts_where_the_log_has_none() -> None:
    points = [
        Point(step=each.step, loss=each.loss, eval_loss=each.eval_loss)
        for each in epochs(TRAIN, [1.0, 0.9, 1.2, 1.4, 1.6, 1.8, 2.0])
    ]
    assert not run(Overfitting(Facts(steps_per_epoch=1000)), points)
    (finding,) = run(Overfitting(Facts(steps_per_epoch=100)), points)
    assert finding.changes == {"train.epochs": 2}
    (finding,) = run(Overfitting(Facts()), points)
    assert "whether rows repeat" in finding.not_tested[0] and finding.changes == {"evaluate.patience": 2}


def test_noise_of_a_small_validation_set_is_no_rise() -> None:
    """Known standard errors: no alarm. Unknown ones at 3 % noise: at most 1 of 50 runs."""
    alarms = 0
    for seed in range(100):
        random = Random(seed)
        unseen = [(0.25 + 0.25 / at) * (1 + random.gauss(0, 0.03)) for at in range(1, 16)]
        train = [0.2 * at**-0.3 for at in range(1, 16)]
        assert not run(Overfitting(Facts()), epochs(train, unseen, error=0.03))
        alarms += bool(run(Overfitting(Facts()), epochs(train, unseen)))
    assert alarms <= 2


def test_it_is_told_again_only_after_a_new_best() -> None:
    up = [1.0, 0.9, 1.1, 1.2, 1.3]
    train = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    found = run(Overfitting(Facts()), epochs(train, [*up, 0.8, 1.0, 1.1], error=0.01))
    assert [each.step for each in found] == [400, 800]
