"""The largest micro-batch that fits into a memory, and the least that has to change for a recipe to fit."""

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from etude.plan import Plan
from etude.plan.memory import Memory, about_memory, is_traceable, memory_of
from etude.recipe.model import Adapter
from etude.recipe.schema import Recipe

# What a step holds however many samples it has.
_FIXED = ("weights", "gradients", "optimizer state", "cast weights", "workspace")
MemoryOf = Callable[[Recipe, int], Memory]
About = Callable[[Recipe, int], float | None]
_DOUBT = 0.02  # the share by which a size that is not tried has to be too large


@dataclass(frozen=True)
class Fit:
    """A way for a recipe to fit into a memory.

    changes  keys of the recipe and their values, none if it fits as it is; the samples of a step stay
    memory   of a step with these changes
    """

    changes: dict[str, Any]
    micro_batch_size: int
    memory: Memory


def largest_micro_batch(
    memory_of: Callable[[int], Memory],
    per_rank: int,
    limit_bytes: int,
    about: Callable[[int], float | None] | None = None,
) -> tuple[int, Memory] | None:
    """The largest divisor of a rank's samples whose step fits, with its memory; None if no sample does.

    memory_of: the memory of a step in micro-batches of a size; it is asked for as few sizes as can be. Both
    the answer and the next larger size are tried, unless `about` leaves no doubt of the latter.
    about: the bytes of a step to a hundredth or two for a tenth of the work, if they are known.
    """
    sizes = [size for size in range(1, per_rank + 1) if per_rank % size == 0]
    line = _line(sizes, about) if about and len(sizes) > 1 else None
    low, high, best = 0, len(sizes), None  # all below low fit, none from high on does
    place = high - 1 if line is None else bisect.bisect_right(sizes, float(limit_bytes), key=line) - 1
    for turn in range(len(sizes)):
        if low == high:
            break
        place = min(max(place, low), high - 1)
        memory = memory_of(sizes[place])
        if fits := memory.device_bytes <= limit_bytes:
            best, low = (sizes[place], memory), place + 1
            if line and low < high and _is_clear(memory, line(sizes[low]) / line(sizes[place]), limit_bytes):
                break
        else:
            high = place
        if turn > 1:
            place = (low + high) // 2
        elif turn == 0 and line is None:
            place = bisect.bisect_right(sizes, _guess(memory, sizes[place], limit_bytes)) - 1
        else:
            place = low if fits else high - 1  # a neighbour
    return best


def _line(sizes: list[int], about: Callable[[int], float | None]) -> Callable[[int], float] | None:
    """The bytes of each size, by those of the smallest and a middle one, quicker than the largest."""
    first, other = sizes[0], sizes[len(sizes) // 2]
    least, more = about(first), about(other)
    if least is None or more is None:
        return None
    slope = (more - least) / (other - first)
    return lambda size: least + slope * (size - first)


def _is_clear(memory: Memory, growth: float, limit_bytes: int) -> bool:
    """True if a step that grows by so much certainly does not fit."""
    return memory.device_bytes * growth > (1 + _DOUBT) * limit_bytes


def _guess(memory: Memory, size: int, limit_bytes: int) -> float:
    """The samples for which there is room, where so many take too much."""
    fixed = sum(memory.parts.get(part, 0) for part in _FIXED)
    fixed += memory.device_bytes - memory.peak
    return size * (limit_bytes - fixed) / max(memory.device_bytes - fixed, 1)


def likely_micro_batch(plan: Plan, per_rank: int, limit_bytes: int) -> int:
    """The largest micro-batch that fits by traces, to be tried first; all samples without a trace."""
    if not is_traceable(plan):
        return per_rank
    try:
        about = partial(about_memory, plan)
        found = largest_micro_batch(partial(memory_of, plan), per_rank, limit_bytes, about)
    except Exception:  # who tries a size finds out all the same
        return per_rank
    return found[0] if found else 1


def find_fit(
    recipe: Recipe,
    memory_of: MemoryOf,
    size: int,
    per_rank: int,
    limit_bytes: int,
    about: About | None = None,
) -> Fit | None:
    """The smallest list of changes with which a recipe fits, in the order of harm; None if nothing helps.

    First smaller micro-batches and more of them, which change nothing that is learnt; then activations that
    are computed again, for a fifth more time; an adapter last, with which another model is learnt.

    size: of its micro-batches now. per_rank: samples of a step on one rank, which stay. about: as for
    `largest_micro_batch`, of a recipe and a size.
    """
    for changed, changes in _ways(recipe):
        rough = about and partial(about, changed)
        found = largest_micro_batch(partial(memory_of, changed), size, limit_bytes, rough)
        if found is not None:
            now, memory = found
            if now < size:
                changes = {"train.micro_batch_size": now, **changes}
                if recipe.train.accumulation is not None:
                    changes["train.accumulation"] = per_rank // now
            return Fit(changes, now, memory)
    return None


def _ways(recipe: Recipe) -> Iterator[tuple[Recipe, dict[str, Any]]]:
    changes: dict[str, Any] = {}
    yield recipe, {}
    if not recipe.train.activation_checkpointing:
        changes["train.activation_checkpointing"] = True
        train = recipe.train.model_copy(update={"activation_checkpointing": True})
        recipe = recipe.model_copy(update={"train": train})
        yield recipe, dict(changes)
    if recipe.adapter is None and recipe.model.from_ is not None:
        adapter = Adapter(targets="all-linear")
        changes |= {"adapter.rank": adapter.rank, "adapter.targets": adapter.targets}
        yield recipe.model_copy(update={"adapter": adapter}), dict(changes)
