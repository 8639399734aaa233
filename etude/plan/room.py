"""The memory of a step of a plan, and the least that has to change where it does not fit."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from etude.plan import Plan
from etude.plan.fit import Fit, find_fit
from etude.plan.memory import Memory, UntraceableError, about_memory, memory_of
from etude.recipe.schema import Recipe
from etude.recipe.toml import toml_text
from etude.text import rough_size


@dataclass(frozen=True, kw_only=True)
class Room:
    """The memory of a step on one device, and the least that has to change where it does not fit.

    limit   bytes of the device, given or known; None where nobody said
    fit     the recipe as it fits; None where nothing helps, and without a limit
    least   bytes of the device with all that helps, where that is not enough
    """

    memory: Memory
    micro_batch_size: int
    limit: int | None = None
    fit: Fit | None = None
    least: int | None = None

    @property
    def is_hopeless(self) -> bool:
        """True if no change of the recipe makes it fit."""
        return not self.fits and self.fit is None

    @property
    def fits(self) -> bool:
        """True if the recipe fits as it is."""
        return self.limit is None or self.memory.device_bytes <= self.limit

    def rows(self) -> Iterator[tuple[str, str]]:
        """Rows for people: (name, value)."""
        parts = sorted(self.memory.parts.items(), key=lambda part: -part[1])
        shown = ", ".join(
            f"{name} {rough_size(size)}" for name, size in parts if size >= self.memory.peak / 100
        )
        small = self.memory.device_bytes - sum(size for _, size in parts if size >= self.memory.peak / 100)
        if small >= self.memory.device_bytes / 100:
            what = "all else with CUDA itself" if self.memory.device_bytes > self.memory.peak else "all else"
            shown += f", {what} {rough_size(small)}"
        at = f"micro-batches of {self.micro_batch_size:,}, in the {self.memory.phase}"
        yield "memory", f"{rough_size(self.memory.device_bytes)} of the device at the peak ({at}): {shown}"
        if self.limit is None:
            return
        limit = rough_size(self.limit)
        if self.fits:
            yield "room", f"fits into {limit}"
        elif self.fit is None:
            yield (
                "room",
                f"does not fit into {limit}, whatever the micro-batch: {self._least()}{self._weights()}; "
                "take a smaller model or seq_len",
            )
        else:
            changes = " ".join(f"{key}={toml_text(value)}" for key, value in self.fit.changes.items())
            now = rough_size(self.fit.memory.device_bytes)
            yield "room", f"does not fit into {limit}; with {changes} it takes {now}"

    def _weights(self) -> str:
        weights = self.memory.parts.get("weights", 0)
        is_cause = self.limit is not None and weights > self.limit
        return f"; its weights alone take {rough_size(weights)}" * is_cause

    def _least(self) -> str:
        """The smallest need, in words."""
        least = self.memory.device_bytes if self.least is None else self.least
        how = "in micro-batches of 1, with activation checkpointing or an adapter where these help"
        return f"the least that it takes is {rough_size(least)}, {how}"

    def values(self) -> dict[str, Any]:
        """The figures by name, for JSON."""
        memory = asdict(replace(self.memory, shares=()))
        del memory["shares"]
        memory["parts"] = {name.replace(" ", "_"): size for name, size in memory["parts"].items()}
        return memory | {
            "device_bytes": self.memory.device_bytes,
            "micro_batch_size": self.micro_batch_size,
            "limit_bytes": self.limit,
            "fits": self.fits,
            "changes": self.fit and self.fit.changes,
            "least_bytes": self.least,
        }


def make_room(plan: Plan, limit: int | None) -> tuple[Room | None, Plan]:
    """The memory of a step of a plan, and the plan with the micro-batch that fits where it is to be found."""
    if plan.model is None:
        return None, plan
    per_rank = max(plan.global_batch_size // plan.recipe.train.devices, 1)
    size = plan.micro_batch_size or per_rank

    known: dict[int, Memory] = {}
    tried: list[int] = []

    def take(recipe: Recipe, count: int) -> Memory:
        memory = known[count] if recipe is plan.recipe and count in known else memory_of(plan, count, recipe)
        if recipe is plan.recipe:
            known[count] = memory
        tried.append(memory.device_bytes)
        return memory

    def find() -> Fit | None:
        assert limit is not None
        return find_fit(
            plan.recipe, take, size, per_rank, limit, lambda recipe, count: about_memory(plan, count, recipe)
        )

    try:
        fit = find() if limit is not None and plan.micro_batch_size is None else None
        if fit is not None and set(fit.changes) <= {"train.micro_batch_size"}:
            room = Room(memory=fit.memory, micro_batch_size=fit.micro_batch_size, limit=limit)
            return room, replace(plan, micro_batch_size=fit.micro_batch_size) if fit.changes else plan
        if limit is not None and plan.micro_batch_size is None and fit is None:
            size = 1  # which is what does not fit
        needed = take(plan.recipe, size)
    except UntraceableError:  # some models of transformers
        return None, plan
    if limit is not None and plan.micro_batch_size is not None and needed.device_bytes > limit:
        fit = find()
    least = min(tried) if limit is not None and fit is None else None
    return Room(memory=needed, micro_batch_size=size, limit=limit, fit=fit, least=least), plan
