"""An estimate of a run before it begins: size, time, memory and price, and what does not fit."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
import torch

from etude.engine.world import measure_matrix_rate
from etude.errors import InputError
from etude.gpus import SHARE_INTERVAL, Gpu, usual_share
from etude.links import Cluster
from etude.models.weights import has_weights
from etude.plan import Plan
from etude.plan.assumed import plan_without
from etude.plan.beginning import process_bytes
from etude.plan.forecast import (
    ARITHMETIC_INTERVAL,
    USUAL_SHARE,
    Costs,
    assume_costs,
    beside_seconds,
    checkpoint_bytes,
    costs_at,
    count_saves,
    forecast,
    kept_checkpoints,
    least_memory,
    weights_bytes,
    work_of_step,
)
from etude.plan.length import choose_length
from etude.plan.room import Room, make_room
from etude.plan.rows import plan_notes, plan_rows
from etude.plan.stated import find_disagreements
from etude.plan.traffic import Traffic, part_bytes, traffic_of
from etude.plan.values import plan_values
from etude.recipe.schema import Recipe
from etude.records import events
from etude.text import plural, rough_duration, rough_price, rough_size

if TYPE_CHECKING:
    from etude.report.grades import Correction

_CHINCHILLA = 20  # tokens a parameter; arXiv:2203.15556
_GIVEN_INTERVAL = (0.9, 1.2)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A plan with the costs that its forecast is made of.

    costs       None where not even one step fits
    basis       how the costs are known, in words
    assumed     what was assumed as it is not on this machine
    where       the GPU whose published rate was taken
    price       of an hour of one device
    room        what a step takes of a device, and how it fits; None for a module of the user's
    traffic     between several GPUs; None where it is not known
    correction  by the runs before it
    """

    plan: Plan
    costs: Costs | None
    basis: str
    assumed: list[str]
    where: Gpu | None = None
    price: float | None = None
    room: Room | None = None
    traffic: Traffic | None = None
    correction: "Correction | None" = None

    @property
    def is_of_here(self) -> bool:
        """True if the time is that of this machine, by steps or arithmetic."""
        return self.where is None and self.costs is not None and self.costs.interval != _GIVEN_INTERVAL

    def corrected(self, correction: "Correction | None") -> "Estimate":
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
            "beside_seconds": self.costs and round(beside_seconds(self.costs), 3),
            "basis": self.basis,
            "gpu": self.where and self.where.title,
            "memory": self.room and self.room.values(),
            "parallel": plan.parallel.kind,
            "traffic": self.traffic and self.traffic.values(self._compute_seconds, tokens),
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
            yield "evaluation", self._gathered()
        if self.traffic is not None:
            yield "traffic", self.traffic.row()
            yield "overlap", self.traffic.overlap_row(self._compute_seconds, work_of_step(plan)[0])
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

    @property
    def _compute_seconds(self) -> float:
        """Seconds of a step without its exchanges."""
        assert self.costs is not None and self.traffic is not None
        return self.costs.step_seconds - self.traffic.seconds

    def _gathered(self) -> str:
        """The weights that each rank gathers for an evaluation, of a model in pieces."""
        if self.plan.parallel.kind != "shard":
            return ""
        _, blocks, _ = part_bytes(self.plan)
        return f"each pass gathers {rough_size(blocks)}, block by block, and each token of a text is a pass"

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
        said += f", {100 * (beside - saves):.0f} % in tests, evaluations and scores"
        corrected = f"; {self.correction}" if self.correction else ""
        patience = self.plan.recipe.evaluate.patience
        early = "" if patience is None else f"; less if evaluate.patience = {patience} ends it early"
        more = ""
        if self.costs is not None and self.is_of_here:
            more = f"; {rough_duration(beside_seconds(self.costs))} more to begin and for the report"
        return said + corrected + more + early


def estimate(
    recipe: Recipe,
    *,
    gpu: Gpu | None = None,
    cluster: Cluster | None = None,
    rows: int | None = None,
    price: float | None = None,
    tokens_per_second: float | None = None,
    is_quick: bool = False,
    memory: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Estimate the run of a recipe: by steps tried here, or by the published rate of a GPU.

    cluster: machines of the ranks; by default of eight such GPUs, with InfiniBand. rows: training rows, where
    the data are not on this machine. price: of an hour of one device. tokens_per_second: a rate that is
    claimed. is_quick: try no steps. memory: bytes that a device has. tell: takes a line before what lasts.

    Raises: InputError for what no plan is made of, and for a rate that devices or links cannot reach.
    """
    plan, assumed = _plan(recipe, gpu, rows)
    limit = memory or (gpu.memory_bytes if gpu else None)
    room, plan = make_room(replace(plan, device_memory=limit), limit)
    given: dict[str, Any] = {"plan": plan, "assumed": assumed, "where": gpu, "price": price, "room": room}
    traffic = None if gpu is None else traffic_of(plan, cluster or Cluster(gpu.link))
    if tokens_per_second is not None:
        costs = _claimed_costs(plan, gpu, tokens_per_second, traffic)
        return Estimate(costs=costs, basis=f"at the {tokens_per_second:,.12g} tokens a second given", **given)
    if gpu is not None:
        usual, peak = usual_share(recipe, plan.precision), gpu.peak(plan.precision)
        basis = f"by arithmetic, at {100 * usual:.3g} % of {peak / 1e12:,.4g} TFLOP/s ({gpu.source})"
        costs = costs_at(plan, usual * peak, SHARE_INTERVAL)
        return Estimate(costs=_with_traffic(costs, traffic), basis=basis, traffic=traffic, **given)
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


def _with_traffic(costs: Costs, traffic: Traffic | None) -> Costs:
    """Costs with the exchanges of each step, none of which overlaps; the interval begins where all do."""
    if traffic is None:
        return costs
    computed = costs.step_seconds
    step, low, high = computed + traffic.seconds, computed * costs.interval[0], computed * costs.interval[1]
    interval = max(low, traffic.seconds) / step, (high + traffic.seconds) / step
    return replace(costs, step_seconds=step, interval=interval)


def _claimed_costs(plan: Plan, gpu: Gpu | None, tokens_per_second: float, traffic: Traffic | None) -> Costs:
    """Costs at a rate that is claimed. Raises: InputError if the devices, or their links, cannot reach it."""
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
    if traffic is not None and tokens_per_second * traffic.seconds > tokens:
        raise InputError(
            f"--tokens-per-second {tokens_per_second:,.0f} leaves {tokens / tokens_per_second:,.3g} s for a "
            f"step, but the links take {traffic.seconds:,.3g} s for what {traffic.ranks:,} ranks exchange in "
            f"it; expected at most {tokens / traffic.seconds:,.0f}"
        )
    costs = assume_costs(plan, tokens / tokens_per_second, least_memory(plan))
    return replace(costs, interval=_GIVEN_INTERVAL)
