"""The learning rate of a step, as a share of the peak: pure functions of the step number."""

import math

from etude.recipe.schema import Schedule

# In these keys alone two recipes may differ and still begin with the same steps.
HORIZON = (
    "name", "train.epochs", "train.steps", "schedule.kind", "schedule.warmup_steps", "schedule.min_lr_ratio",
    "schedule.decay_ratio",
)  # fmt: skip


def learning_rate_ratio(step: int, schedule: Schedule, *, steps: int) -> float:
    """Share of the peak learning rate at an update, from 0 (first) to steps - 1.

    Rises linearly over `warmup_steps` (the first step is 1 / warmup_steps, not 0), then follows the kind down
    to `min_lr_ratio`, which the last step reaches: linear; cosine, half a period; wsd, flat and then linear
    over the last `decay_ratio` of all steps.

    Source: Loshchilov & Hutter 2017 (cosine); Hu et al. 2024, MiniCPM (warm-up, stable, decay).
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    start = schedule.warmup_steps
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "wsd":
        start = max(start, steps - max(round(schedule.decay_ratio * steps), 1))
        if step < start:
            return 1.0
        done = (step - start + 1) / (steps - start)
    else:
        done = (step - start) / max(steps - 1 - start, 1)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if schedule.kind == "cosine" else 1 - done
    return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * shape


def shared_steps(one: Schedule, its_steps: int, other: Schedule, other_steps: int) -> int:
    """The number of first steps that have the same learning rate under two schedules of one peak."""
    most, step = min(its_steps, other_steps), 0
    if one.warmup_steps == other.warmup_steps:
        step = min(most, flat_until(one, its_steps), flat_until(other, other_steps))
    while step < most and learning_rate_ratio(step, one, steps=its_steps) == learning_rate_ratio(
        step, other, steps=other_steps
    ):
        step += 1
    return step


def flat_until(schedule: Schedule, steps: int) -> int:
    """The steps of warm-up and peak, after which a schedule may fall."""
    if schedule.kind == "constant":
        return steps
    if schedule.kind == "wsd":
        return max(schedule.warmup_steps, steps - max(round(schedule.decay_ratio * steps), 1))
    return schedule.warmup_steps
