"""The figures that a watch reads: points of a log, and facts that are known before the first of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)  # frozen it takes four times as long to make, at each step
class Point:
    """Figures after a step, of training or of an evaluation; None is unknown. Nobody changes them.

    Losses are in nats per target, over the steps since the point before. grad_norm is before clipping,
    update_ratio the norm of an update over that of the weights, eval_error the standard error of eval_loss.
    repeated_loss is the mean over the repeated_rows that came before in training, new_loss over the others.
    """

    step: int
    epoch: float | None = None
    loss: float | None = None
    targets: int | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    skipped: bool = False
    loss_scale: float | None = None
    update_ratio: float | None = None
    seconds: float | None = None
    wait_seconds: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    eval_loss: float | None = None
    eval_error: float | None = None
    repeated_loss: float | None = None
    new_loss: float | None = None
    repeated_rows: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run before its first step, as far as it is known; None is unknown, as in logs of other tools.

    classes           tokens of the vocabulary, or labels: a model that knows nothing has the loss ln(classes)
    frequencies_loss  of a model that knows how often each target occurs, and nothing else
    """

    steps: int | None = None
    steps_per_epoch: int | None = None
    peak_learning_rate: float | None = None
    max_grad_norm: float | None = None
    classes: int | None = None
    frequencies_loss: float | None = None
    objective: str | None = None
    is_pretrained: bool | None = None
    train_rows: int | None = None
    eval_rows: int | None = None
    precision: str | None = None
    metric: str | None = None
    lower_is_better: bool | None = None
    patience: int | None = None
    memory_limit_bytes: int | None = None


def clipping(facts: Facts) -> tuple[str, dict[str, float]]:
    """Advice and change of a recipe that bound the gradient, where no limit of its norm is known."""
    if facts.max_grad_norm:
        return "", {}
    return "; train.max_grad_norm = 1.0 if nothing clips", {"train.max_grad_norm": 1.0}
