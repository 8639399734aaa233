"""The length of each trial, from the data where they can be read, and the time and memory that it takes."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from etude.data.loader import steps_per_epoch
from etude.engine.world import measure_matrix_rate
from etude.errors import InputError
from etude.gpus import Gpu, usual_share
from etude.models.families.table import family_of
from etude.plan import Plan, make_plan
from etude.plan.assumed import plan_without
from etude.plan.forecast import assume_costs, forecast, work_of_step
from etude.plan.length import choose_length
from etude.plan.memory import Memory, memory_of
from etude.recipe.load import flatten, values_hash
from etude.recipe.schema import Recipe
from etude.sweep.dispatch import Device, too_large
from etude.sweep.grid import Sweep, Trial
from etude.sweep.local import find_devices
from etude.sweep.room import Room, foresee_room
from etude.sweep.tree import Planned

_ASSUMED_ROWS = 10_000
_PROCESS_BYTES = 500_000_000  # Python, torch and etude on a CPU: tiny runs hold 340 to 400 MB
_RATE_SHARE = 0.5  # of square matrix products, that a training reaches
# Keys that change neither the rows of an epoch nor the work of a row.
_FREE = (
    "name", "seed", "train.epochs", "train.steps", "train.global_batch_size", "train.accumulation",
    "train.micro_batch_size", "train.max_grad_norm", "train.activation_checkpointing", "train.share_prefixes",
)  # fmt: skip
_FREE_SECTIONS = (
    "optim.",
    "schedule.",
    "evaluate.",
    "checkpoint.",
    "records.",
    "watch.",
    "criteria",
    "loss.",
)


@dataclass(frozen=True)
class Measured:
    """The trials of a sweep with their lengths. All else is by the name of a trial.

    seconds   forecast of a step, with its share of evaluations, where model and rows are known
    where     device that the forecast is for, by the first trial of each model
    memory    bytes of its device that a trial needs, where its model can be traced; on a CPU with those of a
              process that does nothing
    rooms     its room on disk
    problems  why a trial cannot be trained as it is
    notes     sentences on what was assumed
    stackable  trials whose models may share a pass
    traced    samples of a micro-batch, and `Memory.added` of a step in such
    """

    planned: tuple[Planned, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stackable: set[str] = field(default_factory=set)
    traced: dict[str, tuple[int, int]] = field(default_factory=dict)

    def with_more(self, other: "Measured") -> "Measured":
        """These trials and those of another."""
        return Measured(
            planned=(*self.planned, *other.planned), seconds=self.seconds | other.seconds,
            where=self.where | other.where, memory=self.memory | other.memory,
            rooms=self.rooms | other.rooms, problems=self.problems | other.problems,
            traced=self.traced | other.traced,
            notes=tuple(dict.fromkeys([*self.notes, *other.notes])),
        )  # fmt: skip

    @property
    def problems_by_model(self) -> dict[str, str]:
        """The first problem of each model whose trials cannot be trained as they are."""
        found: dict[str, str] = {}
        for planned in self.planned:
            if planned.trial.name in self.problems:
                found.setdefault(planned.trial.model, self.problems[planned.trial.name])
        return found


def measure(sweep: Sweep, gpu: Gpu | None = None) -> Measured:
    """Plan one trial of each model and data, and all others by arithmetic on its rows.

    gpu: forecast for this one, by its published rate, in place of this machine.
    """
    found, planned, notes = Measured(()), list[Planned](), dict[str, None]()
    assumed = sweep.file.rows or _ASSUMED_ROWS
    for trials in _alike(sweep.trials):
        plan = None
        try:
            plan = make_plan(max(trials, key=_length).recipe)
        except InputError as error:
            problem = str(error).splitlines()[0]
            found.problems.update({trial.name: problem for trial in trials})
            with contextlib.suppress(InputError):
                plan, _ = plan_without(trials[0].recipe, rows=assumed)
            source = "as the sweep file says" if sweep.file.rows else "assumed; give rows in the sweep file"
            notes[f"{assumed:,} training rows where the data cannot be read, {source}"] = None
        planned += [_planned(trial, len(plan.train) if plan else assumed) for trial in trials]
        if plan is not None:
            plan, rate = _place(plan, gpu)
            too_short = _too_short(plan, trials)
            found.problems.update(too_short)
            trials = [trial for trial in trials if trial.name not in too_short]
            where = gpu.title if gpu else f"this machine, {plan.precision} on {plan.device}"
            found.where.update({trial.name: where for trial in trials[:1]})
            found.seconds.update({trial.name: _step_seconds(plan, trial, rate) for trial in trials})
            own = _PROCESS_BYTES if plan.device.type == "cpu" else 0
            traced = _trace(plan, trials)
            found.memory.update({name: own + memory.device_bytes for name, (_, memory) in traced.items()})
            found.traced.update({name: (size, memory.added) for name, (size, memory) in traced.items()})
            rooms = {trial.name: _room(plan, trial, found.seconds[trial.name]) for trial in trials}
            found.rooms.update(rooms)
            if plan.model is not None and family_of(plan.model).stacks:
                found.stackable.update(trial.name for trial in trials)
    order = {trial.name: place for place, trial in enumerate(sweep.trials)}
    planned.sort(key=lambda each: order[each.trial.name])
    return replace(found, planned=tuple(planned), notes=tuple(notes))


def measure_for_plan(sweep: Sweep, gpu: Gpu | None) -> Measured:
    """The trials as measured for a GPU that need not be here, or for this machine; of Ray none is known.

    One that fits on no device has a problem. Of `resources.memory_gb` each has as much, where it is given.
    """
    measured = measure(sweep, gpu)
    devices = [] if gpu is None else [Device(gpu.title, 1, gpu.memory_bytes)]
    if gpu is None and sweep.file.resources.executor == "local":
        devices = find_devices(sweep)
    most = sweep.file.resources.memory_bytes or max((each.memory_bytes or 0 for each in devices), default=0)
    large = {name: too_large(need, most) for name, need in measured.memory.items() if 0 < most < need}
    return replace(measured, problems=large | measured.problems)


def batch_of(recipe: Recipe) -> int:
    """Samples of a step over all devices."""
    train = recipe.train
    if train.global_batch_size is not None:
        return train.global_batch_size
    assert isinstance(train.micro_batch_size, int) and train.accumulation is not None
    return train.micro_batch_size * train.accumulation * train.devices


def _alike(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of the same model and data, in groups."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        values = flatten(trial.recipe.to_dict())
        kept = {
            key: value
            for key, value in values.items()
            if key not in _FREE and not key.startswith(_FREE_SECTIONS)
        }
        groups.setdefault(values_hash(kept), []).append(trial)
    return list(groups.values())


def _length(trial: Trial) -> tuple[int, int, int]:
    """An order by which the last of trials on the same rows has most steps."""
    return trial.recipe.train.steps or 0, trial.recipe.train.epochs or 0, -batch_of(trial.recipe)


def _too_short(plan: Plan, trials: Sequence[Trial]) -> dict[str, str]:
    """The problem of each trial that has fewer steps than it needs to warm up."""
    found = {}
    for trial in trials:
        try:
            choose_length(trial.recipe, plan.train, plan.device)
        except InputError as error:
            found[trial.name] = str(error).splitlines()[0]
    return found


def _planned(trial: Trial, rows: int) -> Planned:
    per_epoch = steps_per_epoch(rows, batch_of(trial.recipe))
    train = trial.recipe.train
    return Planned(trial, train.steps or (train.epochs or 0) * per_epoch, per_epoch)


def _step_seconds(plan: Plan, trial: Trial, rate: float) -> float:
    """Seconds of a step of a trial with its share of evaluations and final scores, at a rate."""
    tokens, targets = work_of_step(plan)
    samples = min(plan.global_batch_size, len(plan.train))
    own = min(batch_of(trial.recipe), len(plan.train))
    step = plan.cost.operations(tokens, targets) / samples * own / rate
    whole = forecast(plan, assume_costs(plan, step * samples / own, 0)).seconds
    return step * max(whole / max(plan.steps * step * samples / own, 1e-9), 1.0)


def _place(plan: Plan, gpu: Gpu | None) -> tuple[Plan, float]:
    """The plan on the device that a forecast is for, and operations a second there."""
    if gpu is None:
        return plan, _RATE_SHARE * measure_matrix_rate(plan.device, _dtype(plan))
    precision = gpu.choose_precision(plan.recipe.train.precision)
    share = usual_share(plan.recipe, precision)
    return replace(plan, precision=precision, device=torch.device("cuda")), share * gpu.peak(precision)


def _trace(plan: Plan, trials: Sequence[Trial]) -> dict[str, tuple[int, Memory]]:
    """The samples of a micro-batch of each trial, and the memory of its step."""
    if plan.model is None:
        return {}
    known: dict[tuple[int, int, bool], Memory] = {}
    needs: dict[str, tuple[int, Memory]] = {}
    for trial in trials:
        batch, train = batch_of(trial.recipe), trial.recipe.train
        size = choose_length(trial.recipe, plan.train, plan.device).micro_batch_size or batch // train.devices
        key = size, batch, train.activation_checkpointing
        if key not in known:
            of_trial = replace(plan, recipe=trial.recipe, global_batch_size=batch)
            known[key] = memory_of(of_trial, size, trial.recipe)
        needs[trial.name] = size, known[key]
    return needs


def _room(plan: Plan, trial: Trial, step_seconds: float) -> Room:
    own = _planned(trial, len(plan.train))
    return foresee_room(
        replace(
            plan, recipe=trial.recipe, global_batch_size=batch_of(trial.recipe), steps=own.steps,
            steps_per_epoch=own.steps_per_epoch,
        ),
        step_seconds,
    )  # fmt: skip


def _dtype(plan: Plan) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(plan.precision, torch.float32)
