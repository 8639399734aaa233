"""The largest micro-batch that fits into a memory, and the least that has to change for a recipe to fit."""

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from etude.plan import Plan
from etude.plan.memory import Memory, is_traceable, memory_of
from etude.recipe.model import Adapter
from etude.recipe.schema import Recipe

# What a step holds however many samples it has.
_FIXED = ("weights", "gradients", "optimizer state", "cast weights", "workspace")
MemoryOf = Callable[[Recipe, int], Memory]


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
    memory_of: Callable[[int], Memory], per_rank: int, limit_bytes: int
) -> tuple[int, Memory] | None:
    """The largest divisor of a rank's samples whose step fits, with its memory; None if no sample does.

    memory_of: the memory of a step in micro-batches of a size; it is asked for as few sizes as can be. What
    is not held for each sample tells where to look, and both the answer and the next larger size are tried.
    """
    sizes = [size for size in range(1, per_rank + 1) if per_rank % size == 0]
    whole = memory_of(sizes[-1])
    if whole.device_bytes <= limit_bytes:
        return sizes[-1], whole
    low, high, best = 0, len(sizes) - 1, None  # all below low fit, none from high on does
    place = bisect.bisect_right(sizes, _guess(whole, sizes[-1], limit_bytes)) - 1
    for turn in range(len(sizes)):
        if low == high:
            break
        place = min(max(place, low), high - 1)
        memory = memory_of(sizes[place])
        if memory.device_bytes <= limit_bytes:
            best, low = (sizes[place], memory), place + 1
        else:
            high = place
        place = (
            (low + high) // 2 if turn else low if low > place else high - 1
        )  # a neighbour, then the middle
    return best


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
        found = largest_micro_batch(partial(memory_of, plan), per_rank, limit_bytes)
    except Exception:  # who tries a size finds out all the same
        return per_rank
    return found[0] if found else 1


def find_fit(recipe: Recipe, memory_of: MemoryOf, size: int, per_rank: int, limit_bytes: int) -> Fit | None:
    """The smallest list of changes with which a recipe fits, in the order of harm; None if nothing helps.

    First smaller micro-batches and more of them, which change nothing that is learnt; then activations that
    are computed again, for a fifth more time; an adapter last, with which another model is learnt.

    size: of its micro-batches now. per_rank: samples of a step on one rank, which stay.
    """
    for changed, changes in _ways(recipe):
        found = largest_micro_batch(partial(memory_of, changed), size, limit_bytes)
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
