"""Questions that the figures of a run leave open, each with the reason."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from etude.watch.point import Facts, Point

_FEW_POINTS, _FEW_EVALUATIONS = 20, 3
_NEGATIVE = 0.1  # of the losses, from which they are of no likelihood
_COARSE = 50  # steps between points, from which a spike may lie between two of them


class Unknown(NamedTuple):
    """A question that cannot be answered, and the reason."""

    about: str
    why: str


def list_unknown(points: Sequence[Point], facts: Facts, *, has_model: bool) -> list[Unknown]:
    """The questions about a run that its figures leave open, the weightiest first.

    has_model: whether the model and its data are at hand, as in a run of etude.
    """
    return [
        *_of_losses([point.loss for point in points if point.loss is not None]),
        *_of_evaluations(points, facts),
        *_of_the_rest(points, facts),
        *([] if has_model else [_CAUSES]),
    ]


_CAUSES = Unknown(
    "the cause of a fault",
    "wrong labels, masks, padding and repeated rows look alike in a curve; tests of them need the model and "
    "the data, and a log has neither",
)


def _of_losses(losses: Sequence[float]) -> Iterator[Unknown]:
    if not losses:
        yield Unknown("training", "the log has no training loss, only that of evaluations")
    elif len(losses) < _FEW_POINTS:
        yield Unknown("slow faults", f"{len(losses)} training losses are too few to tell a trend from noise")
    if losses and sum(loss < 0 for loss in losses) > _NEGATIVE * len(losses):
        yield Unknown(
            "the level of the loss",
            "losses below 0 are of no likelihood, as of a policy gradient, and no level of them is usual",
        )


def _of_evaluations(points: Sequence[Point], facts: Facts) -> Iterator[Unknown]:
    evaluations = sum(point.eval_loss is not None for point in points)
    if not evaluations:
        yield Unknown(
            "overfitting",
            "there is no validation loss, and a training loss alone falls when rows are learnt by heart too",
        )
    elif evaluations < _FEW_EVALUATIONS:
        yield Unknown("overfitting", f"{evaluations} of at least {_FEW_EVALUATIONS} evaluations are there")
    elif facts.eval_rows is None and all(point.eval_error is None for point in points):
        yield Unknown(
            "small changes of the validation loss",
            "neither its standard error nor the rows behind it are known",
        )


def _of_the_rest(points: Sequence[Point], facts: Facts) -> Iterator[Unknown]:
    def lacks(figure: str) -> bool:
        return all(getattr(point, figure) is None for point in points)

    if lacks("grad_norm"):
        yield Unknown("gradients", "their norm is not logged, so spikes show late and clipping not at all")
    if lacks("learning_rate"):
        yield Unknown(
            "the learning rate", "it is not logged, so one that ended early or stayed at 0 is not seen"
        )
    if lacks("epoch") and facts.steps_per_epoch is None:
        yield Unknown(
            "repeated rows", "epochs are not known, so a row may have come for the first time or the tenth"
        )
    if facts.classes is None:
        yield Unknown(
            "the first loss",
            "the number of tokens or labels to choose from is not known, nor so the loss of a guess",
        )
    if lacks("tokens_per_second") and lacks("seconds"):
        yield Unknown("speed", "neither the time of a step nor tokens a second are logged")
    if lacks("memory_bytes"):
        yield Unknown("memory", "its use is not logged")
    steps = [point.step for point in points if point.loss is not None]
    gaps = [after - before for before, after in pairwise(steps)]
    if gaps and (gap := statistics.median(gaps)) >= _COARSE:
        yield Unknown("short spikes", f"a row comes each {gap:,.0f} steps, and what was between is not in it")
