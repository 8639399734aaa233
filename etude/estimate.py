"""An estimate of a run before it begins: size, time, memory and price, and what does not fit."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch

from etude.engine.world import measure_matrix_rate
from etude.errors import InputError
from etude.models.weights import has_weights
from etude.plan import Plan
from etude.plan.assumed import plan_without
from etude.plan.beginning import process_bytes
from etude.plan.fit import Fit, find_fit
from etude.plan.forecast import (
    ARITHMETIC_INTERVAL,
    USUAL_SHARE,
    Costs,
    assume_costs,
    checkpoint_bytes,
    costs_at,
    count_saves,
    forecast,
    kept_checkpoints,
    least_memory,
    weights_bytes,
    work_of_step,
)
from etude.plan.gpus import SHARE_INTERVAL, Gpu, usual_share
from etude.plan.length import choose_length
from etude.plan.memory import Memory, UntraceableError, about_memory, memory_of
from etude.plan.rows import plan_notes, plan_rows
from etude.plan.stated import find_disagreements
from etude.plan.values import plan_values
from etude.recipe.schema import Recipe
from etude.recipe.toml import toml_text
from etude.records import events
from etude.records.environment import describe_machine
from etude.report.grades import Correction, conditions
from etude.text import plural, rough_duration, rough_price, rough_size

_CHINCHILLA = 20  # tokens a parameter; arXiv:2203.15556
_GIVEN_INTERVAL = (0.9, 1.2)


@dataclass(frozen=True, kw_only=True)
class Room:
    """The memory of a step on one device, and the least that has to change where it does not fit.

    limit   bytes of the device, given or known; None where nobody said
    fit     the recipe as it fits; None where nothing helps, and without a limit
    """

    memory: Memory
    micro_batch_size: int
    limit: int | None = None
    fit: Fit | None = None

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
                f"does not fit into {limit}, whatever the micro-batch{self._weights()}; "
                "take a smaller model or seq_len",
            )
        else:
            changes = " ".join(f"{key}={toml_text(value)}" for key, value in self.fit.changes.items())
            now = rough_size(self.fit.memory.device_bytes)
            yield "room", f"does not fit into {limit}; with {changes} it takes {now}"

    def _weights(self) -> str:
        weights = self.memory.parts.get("weights", 0)
        is_cause = self.limit is not None and weights > self.limit
        return f": its weights alone take {rough_size(weights)}" * is_cause

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
        }


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A plan with the costs that its forecast is made of.

    costs       None where not even one step fits
    basis       how the costs are known, in words
    assumed     what was assumed as it is not on this machine
    where       the GPU whose published rate was taken
    price       of an hour of one device
    room        what a step takes of a device, and how it fits; None for a module of the user's
    correction  by the runs before it
    """

    plan: Plan
    costs: Costs | None
    basis: str
    assumed: list[str]
    where: Gpu | None = None
    price: float | None = None
    room: Room | None = None
    correction: Correction | None = None

    @property
    def is_of_here(self) -> bool:
        """True if the time is that of this machine, by steps or arithmetic."""
        return self.where is None and self.costs is not None and self.costs.interval != _GIVEN_INTERVAL

    @property
    def conditions(self) -> tuple[str, str, str]:
        """Machine, device and kind of training, as the grades of runs have them."""
        return conditions(describe_machine(), self.plan.device.type, self.plan.recipe.train.objective)

    def corrected(self, correction: Correction | None) -> "Estimate":
        """The same estimate, corrected by the runs before it."""
        return replace(self, correction=correction)

    @property
    def forecast(self) -> events.Forecast | None:
        """Time, memory and disk of the whole run."""
        if self.costs is None:
            return None
        costs = self.costs
        if self.room is not None and not costs.tried:
            here = psutil.Process().memory_info().rss
            costs = replace(costs, memory_bytes=process_bytes(self.plan, self.room.memory, here))
        made = forecast(self.plan, costs)
        if self.correction is None:
            return made
        least = self.plan.steps * costs.step_seconds if costs.tried else 0.0
        return self.correction.apply(made, least)

    @property
    def cost(self) -> float | None:
        """The price of all devices for the whole run."""
        if self.price is None or (made := self.forecast) is None:
            return None
        return self.price * made.seconds / 3600 * self.plan.recipe.train.devices

    def rows(self) -> list[tuple[str, str]]:
        """The estimate as rows for people: (name, value)."""
        return [row for row in self._rows() if row[1]]

    def values(self) -> dict[str, Any]:
        """The figures of the estimate by name, for JSON."""
        plan, made = self.plan, self.forecast
        tokens, targets = work_of_step(plan)
        values = plan_values(plan)
        return values | {
            "notes": plan_notes(plan),
            "assumed": self.assumed,
            "disagreements": find_disagreements(plan),
            "tokens_per_step": round(tokens),
            "targets_per_step": round(targets),
            "tokens_per_parameter": values["tokens"] / plan.parameters["total"],
            "checkpoint_bytes": checkpoint_bytes(plan),
            "weights_bytes": weights_bytes(plan),
            "checkpoints": count_saves(plan, made.seconds) if made else None,
            "forecast": made and asdict(made),
            "basis": self.basis,
            "gpu": self.where and self.where.title,
            "memory": self.room and self.room.values(),
            "cost": self.cost,
            "correction": self.correction and asdict(self.correction),
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        plan, made = self.plan, self.forecast
        yield from (("assumed" if not number else "", note) for number, note in enumerate(self.assumed))
        rows = plan_rows(plan)
        at = [name for name, _ in rows].index("device")
        yield from rows[:at]
        yield "device", self.where.title + rows[at][1].removeprefix("cuda") if self.where else rows[at][1]
        yield (
            "parameters",
            ", ".join(
                f"{name.replace('_', ' ')} {count:,}"
                for name, count in plan.parameters.items()
                if name != "total" and count
            ),
        )
        yield "tokens", self._tokens()
        yield "checkpoints", self._checkpoints(made)
        if self.room is not None:
            yield from self.room.rows()
        if made is None:
            yield "forecast", self.basis
        else:
            yield "time", self._time(made)
            if self.costs is not None and (self.costs.tried or plan.device.type == "cpu"):
                whole, how = rough_size(made.memory_bytes), ", measured," if self.costs.tried else ""
                yield "process", f"{whole} of memory{how} with what Python and torch hold"
            yield "cost", self._price(made)
        yield from (("disagreement", said) for said in find_disagreements(plan))
        yield from rows[at + 1 :]

    def _price(self, made: events.Forecast) -> str:
        if self.cost is None or self.price is None:
            return ""
        low, high = (self.cost * each / max(made.seconds, 1e-9) for each in made.interval)
        return rough_price(self.cost, (low, high), self.price)

    def _tokens(self) -> str:
        plan, values = self.plan, plan_values(self.plan)
        tokens, _ = work_of_step(plan)
        total = plan.parameters["total"]
        each = values["tokens"] / total
        said = f"{round(tokens):,} a step, {values['tokens']:,} in all, {each:.3g} a parameter"
        if plan.pretrained is None and plan.recipe.kind.chats and not plan.recipe.tasks:
            steps = -(-_CHINCHILLA * total // max(round(tokens), 1))
            said += f"; {_CHINCHILLA} a parameter (arXiv:2203.15556) are {_CHINCHILLA * total:,}, "
            said += plural(steps, "step")
        return said

    def _checkpoints(self, made: events.Forecast | None) -> str:
        plan = self.plan
        with_moments, without = checkpoint_bytes(plan), weights_bytes(plan)
        said = f"{rough_size(with_moments)} each, {rough_size(without)} of it weights"
        if made is not None:
            count = count_saves(plan, made.seconds)
            said += f"; {count:,} made, {kept_checkpoints(plan, count):,} kept; "
            said += f"{rough_size(made.disk_bytes)} on disk at the end"
        return said

    def _time(self, made: events.Forecast) -> str:
        low, high = (rough_duration(seconds) for seconds in made.interval)
        beside = made.evaluation_seconds / max(made.seconds, 1e-9)
        said = f"about {rough_duration(made.seconds)} ({low} to {high}); {self.basis}"
        saves = made.checkpoint_seconds / max(made.seconds, 1e-9)
        saves = saves if saves > 0.01 else 0.0
        said += f"; {100 * (1 - beside):.0f} % of it in steps"
        said += f", {100 * saves:.0f} % in checkpoints" * bool(saves)
        said += f", {100 * (beside - saves):.0f} % in tests, evaluations and the report"
        corrected = f"; {self.correction}" if self.correction else ""
        patience = self.plan.recipe.evaluate.patience
        early = "" if patience is None else f"; less if evaluate.patience = {patience} ends it early"
        return said + corrected + early


def estimate(
    recipe: Recipe,
    *,
    gpu: Gpu | None = None,
    rows: int | None = None,
    price: float | None = None,
    tokens_per_second: float | None = None,
    is_quick: bool = False,
    memory: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Estimate the run of a recipe: by steps tried here, or by the published rate of a GPU.

    rows: training rows, where the data are not on this machine. price: of an hour of one device.
    tokens_per_second: a rate that is claimed. is_quick: try no steps. memory: bytes that a device has.
    tell: takes a line before what lasts.

    Raises: InputError for what no plan is made of, and for a rate that the device cannot reach.
    """
    plan, assumed = _plan(recipe, gpu, rows)
    room, plan = make_room(plan, memory or (gpu.memory_bytes if gpu else None))
    given: dict[str, Any] = {"plan": plan, "assumed": assumed, "where": gpu, "price": price, "room": room}
    if tokens_per_second is not None:
        costs = _claimed_costs(plan, gpu, tokens_per_second)
        return Estimate(costs=costs, basis=f"at the {tokens_per_second:,.0f} tokens a second given", **given)
    if gpu is not None:
        usual, peak = usual_share(recipe, plan.precision), gpu.peak(plan.precision)
        basis = f"by arithmetic, at {100 * usual:.3g} % of {peak / 1e12:,.4g} TFLOP/s ({gpu.source})"
        return Estimate(costs=costs_at(plan, usual * peak, SHARE_INTERVAL), basis=basis, **given)
    why = "no step was to be tried" if is_quick else _why_untried(plan, assumed)
    if not why:
        from etude.probe import LIMIT_SECONDS, probe  # as much to import as half of the rest

        tell(f"trying steps, for {LIMIT_SECONDS:.0f} s at most; --quick leaves that out")
        tried = probe(plan)
        return Estimate(costs=tried.costs, basis=tried.basis, **given)
    rate = _local_rate(plan)
    share = f"{100 * USUAL_SHARE:.0f} % of the {rate / 1e9:,.0f} GFLOP/s measured here"
    basis = f"by arithmetic, at {share}, as {why}"
    return Estimate(costs=costs_at(plan, USUAL_SHARE * rate, ARITHMETIC_INTERVAL), basis=basis, **given)


def _plan(recipe: Recipe, gpu: Gpu | None, rows: int | None) -> tuple[Plan, list[str]]:
    """The plan of a recipe here, or on a GPU that need not be here; and what was assumed."""
    if gpu is None:
        return plan_without(recipe, rows)
    precision, device = gpu.choose_precision(recipe.train.precision), torch.device("cuda")
    anywhere = recipe.train.model_copy(update={"device": "auto", "precision": "fp32"})
    plan, assumed = plan_without(recipe.model_copy(update={"train": anywhere}), rows)
    length = vars(choose_length(recipe, plan.train, device))
    return replace(plan, recipe=recipe, device=device, precision=precision, **length), assumed


def make_room(plan: Plan, limit: int | None) -> tuple[Room | None, Plan]:
    """The memory of a step of a plan, and the plan with the micro-batch that fits where it is to be found."""
    if plan.model is None:
        return None, plan
    per_rank = max(plan.global_batch_size // plan.recipe.train.devices, 1)
    size = plan.micro_batch_size or per_rank

    known: dict[int, Memory] = {}

    def take(recipe: Recipe, count: int) -> Memory:
        if recipe is not plan.recipe:
            return memory_of(plan, count, recipe)
        if count not in known:
            known[count] = memory_of(plan, count)
        return known[count]

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
        needed = take(plan.recipe, size)
    except UntraceableError:  # some models of transformers
        return None, plan
    if limit is not None and plan.micro_batch_size is not None and needed.device_bytes > limit:
        fit = find()
    return Room(memory=needed, micro_batch_size=size, limit=limit, fit=fit), plan


def _why_untried(plan: Plan, assumed: list[str]) -> str:
    """The reason that no step can be tried here; empty if one can."""
    if assumed:
        return "data are assumed"
    if plan.pretrained is not None and not has_weights(plan.pretrained.path):
        return "the weights are not here"
    if plan.device.type == "cpu" and least_memory(plan) > (here := psutil.virtual_memory().available):
        least = rough_size(least_memory(plan))
        return f"weights and optimizer alone take {least}, and {rough_size(here)} are free"
    return ""


def _local_rate(plan: Plan) -> float:
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return measure_matrix_rate(plan.device, dtypes.get(plan.precision, torch.float32))


def _claimed_costs(plan: Plan, gpu: Gpu | None, tokens_per_second: float) -> Costs:
    """Costs at a rate that is claimed. Raises: InputError if the devices cannot reach it."""
    tokens, targets = work_of_step(plan)
    devices = plan.recipe.train.devices
    wanted = plan.cost.operations(tokens, targets) * tokens_per_second / tokens
    peak = devices * (gpu.peak(plan.precision) if gpu else _local_rate(plan))
    if wanted > peak:
        of = f"{gpu.title} ({gpu.source})" if gpu else "this machine, measured"
        raise InputError(
            f"--tokens-per-second {tokens_per_second:,.0f} takes {wanted / 1e12:,.4g} TFLOP/s of this model, "
            f"more than the {peak / 1e12:,.4g} of {plural(devices, 'device')}: {of}; expected at most "
            f"{tokens_per_second * peak / wanted:,.0f}"
        )
    costs = assume_costs(plan, tokens / tokens_per_second, least_memory(plan))
    return replace(costs, interval=_GIVEN_INTERVAL)
