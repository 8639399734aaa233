"""Questions that the figures of a run leave open, each with the reason."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from etude.watch.point import Facts, Point

_FEW_POINTS = 20
_NEGATIVE = 0.1  # of the losses, from which they are of no likelihood
_COARSE = 50  # steps between points, from which a spike may lie between two of them


class Unknown(NamedTuple):
    """A question that cannot be answered, and the reason."""

    about: str
    why: str


def list_unknown(
    points: Sequence[Point], facts: Facts, untold: Mapping[str, str], *, has_model: bool
) -> list[Unknown]:
    """The questions about a run that its figures leave open, the weightiest first.

    untold: reasons why conditions cannot be judged, by kind, as `Watcher.untold` has them. has_model: whether
    the model and its data are at hand, as in a run of etude.
    """
    of_curve = [*_of_losses(points), *_of_validation(points), *_of_passes(points, facts)]
    known = {each.about for each in of_curve}
    reasons: dict[str, list[str]] = {}
    for kind, why in untold.items():
        if (words := kind.replace("_", " ")) not in known:
            reasons.setdefault(why, []).append(words)
    of_conditions = [Unknown(", ".join(kinds), why) for why, kinds in reasons.items()]
    return [*of_curve, *of_conditions, *([] if has_model else [_CAUSES])]


_CAUSES = Unknown(
    "the cause of a fault",
    "wrong labels, masks, padding and repeated rows look alike in a curve; tests of them need the model and "
    "the data, and a log has neither",
)


def _of_losses(points: Sequence[Point]) -> Iterator[Unknown]:
    losses = [(point.step, point.loss) for point in points if point.loss is not None]
    if not losses:
        yield Unknown("training", "the log has no training loss, only that of evaluations")
    elif len(losses) < _FEW_POINTS:
        yield Unknown("slow faults", f"{len(losses)} training losses are too few to tell a trend from noise")
    if losses and sum(loss < 0 for _, loss in losses) > _NEGATIVE * len(losses):
        yield Unknown(
            "the level of the loss",
            "losses below 0 are of no likelihood, as of a policy gradient, and no level of them is usual",
        )
    gaps = [after - before for (before, _), (after, _) in pairwise(losses)]
    if gaps and (gap := statistics.median(gaps)) >= _COARSE:
        yield Unknown("short spikes", f"a row comes each {gap:,.0f} steps, and what was between is not in it")


def _of_validation(points: Sequence[Point]) -> Iterator[Unknown]:
    if all(point.eval_loss is None for point in points):
        yield Unknown(
            "overfitting",
            "there is no validation loss, and a training loss falls when rows are learnt by heart too",
        )


def _of_passes(points: Sequence[Point], facts: Facts) -> Iterator[Unknown]:
    if facts.steps_per_epoch is None and all(point.epoch is None for point in points):
        yield Unknown(
            "repeated rows", "epochs are not known, so a row may have come for the first time or the tenth"
        )
