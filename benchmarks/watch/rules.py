"""Rules of other tools that judge a run while it goes on, written anew from their public descriptions.

Each takes the points of a run and gives its alarms in their order. All settings are the defaults of the tool.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from etude.watch.point import Point

Alarm = tuple[int, str]  # step and rule


def loss_not_decreasing(points: Sequence[Point], num_steps: int = 10) -> Iterator[Alarm]:
    """SageMaker's LossNotDecreasing: no lower than at least 10 steps before, looked at as often.

    It takes losses of validation if a run has any, and else those of training.
    """
    evaluations = [(each.step, each.eval_loss) for each in points if each.eval_loss is not None]
    losses = evaluations or [(each.step, each.loss) for each in points if each.loss is not None]
    before: tuple[int, float] | None = None
    for step, loss in losses:
        if before is None:
            before = step, loss
        elif step - before[0] >= num_steps:
            if not loss < before[1]:
                yield step, "LossNotDecreasing"
                return
            before = step, loss


def overfit(points: Sequence[Point], ratio: float = 0.1) -> Iterator[Alarm]:
    """SageMaker's Overfit: validation loss 10 % over the mean training loss since the one before."""
    losses: list[float] = []
    for each in points:
        if each.loss is not None:
            losses.append(each.loss)
        if each.eval_loss is not None and losses:
            mean = sum(losses) / len(losses)
            if mean > 0 and (each.eval_loss - mean) / mean > ratio:
                yield each.step, "Overfit"
                return
            losses = []


def overtraining(
    points: Sequence[Point], train: int = 5, validation: int = 10, delta: float = 0.1
) -> Iterator[Alarm]:
    """SageMaker's Overtraining: no loss of training for 5 and of validation for 10 is better by 0.1.

    The description does not say if one of them is enough; read as both it alarms less.
    """
    best, waited = {True: math.inf, False: math.inf}, {True: 0, False: 0}
    for each in points:
        for is_train, loss in ((True, each.loss), (False, each.eval_loss)):
            if loss is None:
                continue
            better = loss < best[is_train] - delta
            best[is_train] = loss if better else best[is_train]
            waited[is_train] = 0 if better else waited[is_train] + 1
        if waited[True] >= train and waited[False] >= validation:
            yield each.step, "Overtraining"
            return


def weight_update_ratio(points: Sequence[Point], least: float = 1e-8, most: float = 10.0) -> Iterator[Alarm]:
    """SageMaker's WeightUpdateRatio: an update over the weights below 1e-8 or above 10."""
    ratios = ((each.step, each.update_ratio) for each in points if each.update_ratio is not None)
    yield from islice(
        ((step, "WeightUpdateRatio") for step, ratio in ratios if not least <= ratio <= most), 1
    )


def vanishing_gradient(points: Sequence[Point], threshold: float = 1e-7) -> Iterator[Alarm]:
    """SageMaker's VanishingGradient: a mean absolute gradient below 1e-7.

    A curve has the norm, which is never below that mean: what is found here is certain, and some is missed.
    """
    norms = ((each.step, each.grad_norm) for each in points if each.grad_norm is not None)
    yield from islice(((step, "VanishingGradient") for step, norm in norms if norm < threshold), 1)


def exploding_tensor(points: Sequence[Point]) -> Iterator[Alarm]:
    """SageMaker's ExplodingTensor: a value that is not finite."""
    for each in points:
        figures = (each.loss, each.eval_loss, each.grad_norm)
        if not all(value is None or math.isfinite(value) for value in figures):
            yield each.step, "ExplodingTensor"
            return


def sagemaker(points: Sequence[Point]) -> list[Alarm]:
    """First alarm of each of SageMaker Debugger's rules that a curve has the figures for."""
    rules = (
        loss_not_decreasing, overfit, overtraining, weight_update_ratio, vanishing_gradient, exploding_tensor
    )  # fmt: skip
    return sorted(alarm for rule in rules for alarm in rule(points))


def patience(points: Sequence[Point], evaluations: int) -> list[Alarm]:
    """The stop of a run after so many evaluations in turn without a lower validation loss than the best.

    With 1 these are the defaults of transformers' EarlyStoppingCallback, which has a threshold of 0.
    """
    best, waited = math.inf, 0
    for number, each in enumerate(point for point in points if point.eval_loss is not None):
        loss = each.eval_loss or 0.0
        is_best = loss < best or number == 0
        best, waited = (loss, 0) if is_best else (best, waited + 1)
        if waited >= evaluations:
            return [(each.step, f"patience of {evaluations}")]
    return []


def zclip(points: Sequence[Point], alpha: float = 0.97, most: float = 2.5, warm_up: int = 25) -> list[Alarm]:
    """Steps at which ZClip clips: norms over the moving mean by more than 2.5 moving deviations.

    Mean and variance begin with those of 25 norms; a clipped norm enters them as it was clipped.
    Source: Kumar et al. 2025, arXiv 2504.02507.
    """
    alarms: list[Alarm] = []
    first: list[float] = []
    mean = variance = 0.0
    for each in points:
        if each.grad_norm is None:
            continue
        norm = each.grad_norm
        if len(first) < warm_up:
            first.append(norm)
            mean = sum(first) / len(first)
            variance = sum((value - mean) * (value - mean) for value in first) / len(first)
            continue
        deviation = math.sqrt(variance)
        score = (norm - mean) / (deviation + 1e-6)
        if score > most:
            alarms.append((each.step, "z-score of the norm"))
            norm = mean + most * deviation * most / score
        mean = alpha * mean + (1 - alpha) * norm
        variance = alpha * variance + (1 - alpha) * (norm - mean) * (norm - mean)
    return alarms


def lightning(points: Sequence[Point], window: int = 10, warm_up: int = 1, ratio: float = 2.0) -> list[Alarm]:
    """The spike at which Lightning's SpikeDetection ends a run.

    It is a loss that is not finite, or that has risen and is further from the mean of the last 10 than twice
    that mean.
    """
    last: deque[float] = deque(maxlen=window)
    losses = ((each.step, each.loss) for each in points if each.loss is not None)
    for number, (step, loss) in enumerate(losses):
        if number >= warm_up:
            mean = sum(last) / len(last) if last else math.nan
            has_risen = bool(last) and loss > last[-1] and abs(loss - mean) >= abs(ratio * mean)
            if not math.isfinite(loss) or has_risen:
                return [(step, "spike")]
        last.append(loss)
    return []


RULES: dict[str, Callable[[Sequence[Point]], list[Alarm]]] = {
    "SageMaker's rules": sagemaker,
    "patience of 1 (transformers)": lambda points: patience(points, 1),
    "patience of 3": lambda points: patience(points, 3),
    "ZClip": zclip,
    "Lightning's spikes": lightning,
}
