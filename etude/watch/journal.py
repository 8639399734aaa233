"""Points and facts from the journal of a run, the same while it goes on and afterwards."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from etude.recipe.schema import Recipe
from etude.records.events import Attempt, DataUsed, Evaluation, Event, Resource, Step
from etude.watch.point import Facts, Point


def point_of(event: Event, steps_per_epoch: int) -> Point | None:
    """The point of a step, an evaluation or a resource record; None for other records."""
    match event:
        case Step():
            return Point(
                step=event.step,
                epoch=min(max(event.step / steps_per_epoch, event.epoch), event.epoch + 1),
                loss=event.loss,
                targets=event.targets,
                grad_norm=event.grad_norm,
                learning_rate=event.learning_rate,
                skipped=event.skipped,
                seconds=event.seconds,
                wait_seconds=event.wait_seconds,
                loss_scale=event.loss_scale,
            )
        case Evaluation(asked=False):
            metrics = {name: value for name, value in event.metrics.items() if not math.isnan(value)}
            return Point(
                step=event.step,
                epoch=event.step / steps_per_epoch,
                eval_loss=event.loss,
                eval_error=event.loss_error,
                metrics=metrics,
            )
        case Resource():
            rate, on_gpu = event.tokens_per_second, event.gpu_memory_bytes
            own = max(event.rss_bytes - (event.mapped_bytes or 0), 0)
            return Point(
                step=event.step,
                tokens_per_second=rate if math.isfinite(rate) else None,
                memory_bytes=own if on_gpu is None else on_gpu,
            )
    return None


def points_of(events: Iterable[Event]) -> Iterator[Point]:
    """The points of the records of a run, in their order; before the first attempt there are none."""
    steps_per_epoch = None
    for event in events:
        if isinstance(event, Attempt):
            steps_per_epoch = event.steps_per_epoch
        elif steps_per_epoch and (point := point_of(event, steps_per_epoch)):
            yield point


def facts_of(
    recipe: Recipe, attempt: Attempt, data: DataUsed | None = None, *, has_first_weights: bool = False
) -> Facts:
    """The facts of a run from its recipe and the records of its start.

    has_first_weights: whether it starts from those of another run, as run.json tells by `weights`.
    """
    own_code, several = attempt.environment.get("own_code") or {}, bool(recipe.tasks)
    is_own = bool({"model", "loss"} & own_code.keys())
    counts = data.summary if data else {}
    eval_rows, most = _count(counts, "validation"), recipe.evaluate.max_samples
    return Facts(
        steps=attempt.steps,
        steps_per_epoch=attempt.steps_per_epoch,
        peak_learning_rate=recipe.optim.learning_rate,
        max_grad_norm=recipe.train.max_grad_norm,
        classes=None if several or is_own or recipe.kind.has_labels else _vocab_size(recipe, counts),
        frequencies_loss=data.entropy if data and not is_own else None,
        objective=None if several else recipe.train.objective,
        is_pretrained=None if "model" in own_code else bool(recipe.model.from_ or has_first_weights),
        train_rows=_count(counts, "train"),
        eval_rows=min(eval_rows, most) if eval_rows and most else eval_rows,
        precision=attempt.precision,
        metric=recipe.evaluate.metric,
        lower_is_better=attempt.lower_is_better,
        patience=recipe.evaluate.patience,
        memory_limit_bytes=_memory(attempt),
    )


def _vocab_size(recipe: Recipe, counts: dict[str, Any]) -> int | None:
    size = recipe.model.vocab_size or counts.get("vocab_size")
    return size if isinstance(size, int) and size > 1 else None


def _count(counts: dict[str, Any], use: str) -> int | None:
    """Samples of a use over all tasks; each task has its own under its name."""
    parts = [part for name, part in counts.items() if name.split(" ")[-1] == use and isinstance(part, dict)]
    return sum(part.get("samples", 0) for part in parts) or None


def _memory(attempt: Attempt) -> int | None:
    """Bytes of the memory whose use the records have: of the smallest GPU, or of the machine without one."""
    machine = attempt.environment.get("machine") or {}
    if attempt.device != "cuda":
        return machine.get("memory_bytes")
    return min((gpu["memory_bytes"] for gpu in machine.get("gpus") or ()), default=None)
