"""Rules that a loop that works never breaks, checked at log steps; a check reads, and changes nothing."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from etude.data.loader import StepBatches, steps_per_epoch
from etude.data.mixture import Mixture
from etude.data.samples.sample import Samples
from etude.engine.bits import fingerprints
from etude.engine.broken import ADVICE, Broken, broken, finding, first_few, first_numbers
from etude.engine.checkpoint import Snapshot
from etude.engine.counts import Counts
from etude.engine.host import Floats, to_host
from etude.engine.loop import Step, TrainState
from etude.engine.planned import Planned
from etude.engine.stragglers import Stragglers
from etude.engine.updates import Updates
from etude.engine.world import World
from etude.records.events import Finding
from etude.text import plural

MOVED_WITHIN = 20  # steps
_PASS_STEPS = 10  # over which one pass over all weights is spread
_PLAN_STEPS = 50  # between looks that take more time, after as many steps at the start
_CLOSE = 1e-3


@dataclass
class Invariants:
    """The state of a run as its rules want it to be, on each rank; each broken rule is reported once.

    split         the training set
    moved_within  steps within which each trained tensor moves
    """

    state: TrainState
    world: World
    split: Samples | Mixture
    global_batch_size: int
    moved_within: int = MOVED_WITHIN
    stragglers: Stragglers = field(default_factory=Stragglers)
    _read: StepBatches | None = None
    _turn: int = 0
    _compared: int = 0
    _first_step: int = 0
    _started: dict[str, int] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)
    _is_moved: bool = False
    _pending: list[Broken] = field(default_factory=list)
    _is_told: bool = False  # that an evaluation left gradients
    _held: tuple[int, dict[str, Tensor]] | None = None
    _autocast: list[bool] = field(default_factory=list)
    _made: Updates = field(init=False)
    _counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self._made, self._counts = Updates(self.state), Counts(self.state)

    def begin(self) -> None:
        """Take the weights as they are for the start, as an attempt does."""
        self._first_step, self._turn, self._compared, self._is_moved = self.state.step, 0, 0, False
        self._pending.clear()
        self._reported.clear()
        self._is_told, self._held = False, None
        self._counts.begin()
        self._started = fingerprints(self._trained | self._frozen)
        self._made.begin()

    def reading(self, batches: Iterable[StepBatches]) -> Iterator[StepBatches]:
        """The same batches; the last is remembered, and the gradients that are there before its step."""
        for each in batches:
            self._read = each
            number = self.state.step + 1
            is_logged = number % self._log_every_steps == 0
            is_logged |= number in (self._first_step + 1, self.state.course.steps_at(self.state.step))
            if self._held is None and not self._is_told:
                self._look_for_kept(number, looks_at_all=is_logged)
            self._is_told = False
            if is_logged:
                self._made.look()
                self._look_at_precision()
            yield each

    def note(self, step: Step) -> None:
        """Remember an update that was made or skipped, without asking the device for it."""
        if not step.is_void:
            self.stragglers.add(step.own)
            self._made.note(step)

    def check(self, step: Step) -> list[Finding]:
        """The rules that a log step breaks, on any rank, and the rank that is slow; every rank calls it."""
        told = to_host(self._asked(step))
        found = [*self._pending, *self._rules(step, told)]
        found += self._find_other_updates({each.kind for each in found} | self._reported, told)
        self._pending = []
        slow = list[Finding]()
        if self.world.size > 1:
            found, microseconds = self._agree(found)
            slow = self.stragglers.judge(step.number, microseconds)
        new = [each for each in found if each.kind not in self._reported]
        self._reported |= {each.kind for each in new}
        return [*(finding(step.number, each) for each in new), *slow]

    @contextlib.contextmanager
    def unchanged(self, what: str) -> Iterator[None]:
        """Around what must change no weight and leave no gradient: an evaluation, or samples of text."""
        before = fingerprints(self._trained)
        had = {name for name, each in self._trained.items() if each.grad is not None}
        yield
        after = fingerprints(self._trained)
        moved = [name for name, mark in before.items() if after.get(name) != mark]
        left = [name for name, each in self._trained.items() if each.grad is not None and name not in had]
        if moved:
            self._break("evaluation_trains", f"{what} changed weights", f"{first_few(moved)} moved in {what}")
        elif left:
            self._is_told = True
            self._break(
                "evaluation_trains",
                f"{what} left gradients",
                f"{first_few(left)} have gradients after {what}",
            )

    def compare(self, snapshot: Snapshot) -> list[Finding]:
        """A finding if a snapshot does not hold the trained weights as they are."""
        held = set(fingerprints(snapshot.weights).values())
        lost = [name for name, mark in fingerprints(self._trained).items() if mark not in held]
        if not lost or "checkpoint_differs" in self._reported:
            return []
        self._reported.add("checkpoint_differs")
        said = f"{snapshot.name} has other values of {first_few(lost)}"
        what = "a checkpoint does not hold the weights that were trained"
        return [finding(snapshot.progress.step, broken("checkpoint_differs", what, said))]

    def _look_for_kept(self, number: int, *, looks_at_all: bool) -> None:
        """Note gradients that are there before a step: of all tensors, or if one in turn has any."""
        parameters = self.state.optimizer.parameters
        if not looks_at_all and parameters[number % len(parameters)].grad is None:
            return
        if held := [each for each in parameters if each.grad is not None]:
            self._held = number, self._count_held(held)

    def _look_at_precision(self) -> None:
        """Note at the next call of the model whether it computes in the precision of the run."""
        precision = self.state.precision
        if precision.dtype == torch.float32 or self.state.course.recipe.train.compile:
            return

        def note(model: nn.Module, given: object) -> None:
            handle.remove()
            device = precision.device.type
            is_on = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == precision.dtype
            self._autocast.append(is_on)

        handle = self.state.model.register_forward_pre_hook(note)

    def _asked(self, step: Step) -> dict[str, Tensor]:
        """Tensors whose values the rules ask for at a log step, by name."""
        asked = {**self._made.asked(), **self._counts.asked(), "step": step.measured}
        if self.state.optimizer.applied:
            asked["divisor"] = self.state.optimizer.applied[1]
        if self._held:
            asked["held"] = torch.stack(list(self._held[1].values()))
        return asked

    def _rules(self, step: Step, told: dict[str, Floats]) -> Iterator[Broken]:
        yield from self._find_wrong_update(step, told)
        yield from self._find_kept_gradients(told)
        yield from self._counts.find(told, self._reported, looks_at_model=self._is_thorough(step))
        yield from self._find_wrong_start()
        yield from self._find_wrong_samples(step)
        if self._turn % self._parts == 0:
            yield from self._find_wrong_state()
        yield from self._find_unmoved(step)
        yield from self._find_moved()

    def _find_wrong_samples(self, step: Step) -> Iterator[Broken]:
        """Rows of the last step that are missing, and at some log steps samples that are others."""
        if self._read is None:
            return
        if not self._is_thorough(step):
            if said := Planned.find_missing(self._read):
                yield self._other_samples(said)
            return
        course, world = self.state.course, self.world
        done, size = step.number - 1, course.at(step.number - 1).global_batch_size
        planned = Planned(
            self.split, global_batch_size=size, seed=course.recipe.seed, rank=world.rank, ranks=world.size,
            step=course.data_step(done, len(self.split)), turn=self._compared,
        )  # fmt: skip
        self._compared += 1
        if said := planned.find_other(self._read):
            yield self._other_samples(said)

    def _other_samples(self, said: str) -> Broken:
        what = "a step had other samples than the plan"
        return broken("samples_off_plan", what, f"rank {self.world.rank} {said}")

    def _is_thorough(self, step: Step) -> bool:
        """True at log steps that take more time: one in so many steps, and more at the start."""
        spread = _PASS_STEPS if step.number - self._first_step <= _PLAN_STEPS else _PLAN_STEPS
        return self._turn % -(-spread // self._log_every_steps) == 0

    def _find_wrong_update(self, step: Step, told: dict[str, Floats]) -> Iterator[Broken]:
        applied = self.state.optimizer.applied
        settings = self.state.course.at(step.number - 1)
        if applied is None:
            return
        rate = applied[0]
        if rate != settings.learning_rate:
            yield broken(
                "rate_off_schedule", "the learning rate is not that of the schedule",
                f"{rate:.6g} was applied, the schedule has {settings.learning_rate:.6g}",
            )  # fmt: skip
        _, targets, _, norm, skipped, *_ = told["step"].tolist()
        if skipped or settings.max_grad_norm is None or not targets or not math.isfinite(norm):
            return
        due = max(norm / settings.max_grad_norm, 1.0)
        found = float(told["divisor"]) / targets
        if self.state.precision.name == "fp16":  # its scale is a power of two, and may just have changed
            found = due * 2.0 ** (math.log2(found / due) - round(math.log2(found / due)))
        if abs(found / due - 1) > _CLOSE:
            yield broken(
                "clip_skipped", "the gradient was not clipped before the update",
                f"norm {norm:.4g} is to be divided by {due:.4g} for train.max_grad_norm "
                f"{settings.max_grad_norm:g}, and was by {found:.4g}",
            )  # fmt: skip

    def _find_other_updates(self, known: set[str], told: dict[str, Floats]) -> Iterator[Broken]:
        """Updates that took in no gradient, or are not those of the formula, since the last log step."""
        dropped, off = self._made.end(told)
        if known & {"optimizer_state_lost", "optimizer_state_wrong"}:  # of which no update is right
            return
        if dropped:
            steps = first_numbers(dropped)
            said = f"the gradient of step {steps} was not zero, and its averages only decayed"
            what = "updates were made without the gradient"
            yield replace(broken("gradients_dropped", what, said), severity="warning", is_exact=False)
        of = plural(len(self.state.optimizer.names), "trained tensor")
        if names := [name for name, (_, has_stood) in off.items() if has_stood]:
            yield broken(
                "tensor_not_stepped", "the optimizer leaves out some of the weights",
                f"{first_few(names)} of {of} stood still in step {off[names[0]][0]:,}, unlike their averages",
            )  # fmt: skip
        if names := [name for name, (_, has_stood) in off.items() if not has_stood]:
            said = f"{first_few(names)} of {of} are not where step {off[names[0]][0]:,} was to bring them"
            what = "something else than the optimizer wrote to trained weights"
            yield replace(broken("update_wrong", what, said), severity="warning", is_exact=False)

    def _find_wrong_start(self) -> Iterator[Broken]:
        """The precision and the number of steps are those of the recipe."""
        noted, self._autocast = self._autocast, []
        if not all(noted):
            said = f"the model was called without autocast to {self.state.precision.name}"
            yield broken("precision_off", "the model does not compute in the precision of the run", said)
        train, steps = self.state.course.recipe.train, self.state.course.steps
        due = train.steps or (train.epochs or 0) * steps_per_epoch(len(self.split), self.global_batch_size)
        if steps != due:
            said = f"it is to end after step {steps:,}, and the recipe asks for {plural(due, 'step')}"
            yield broken("steps_off_plan", "the run has another length than its recipe", said)

    def _find_wrong_state(self) -> Iterator[Broken]:
        """State of the dtype of its tensor for each tensor."""
        optimizer = self.state.optimizer
        wrong = [
            f"{optimizer.names[parameter]} ({name} in {str(value.dtype).removeprefix('torch.')})"
            for parameter, values in optimizer.states()
            for name, value in values.items()
            if value.dtype != (torch.float32 if name == "step" else parameter.dtype)
        ]
        if wrong:
            what = "state of the optimizer has another dtype"
            yield broken("optimizer_state_wrong", what, first_few(wrong))

    def _count_held(self, held: Sequence[Tensor]) -> dict[str, Tensor]:
        """Numbers in the gradients of some weights that are not 0, which the device tells at the log step."""
        names = self.state.optimizer.names
        return {names[each]: each.grad.count_nonzero() for each in held if each.grad is not None}

    def _find_kept_gradients(self, told: dict[str, Floats]) -> Iterator[Broken]:
        held, self._held = self._held, None
        if held is None:
            return
        number, counts = held
        if names := [name for name, count in zip(counts, told["held"]) if count]:
            yield broken(
                "gradients_kept", "gradients are not set to zero between steps",
                f"{first_few(names)} of {plural(len(self.state.optimizer.names), 'trained tensor')} held a "
                f"gradient before step {number:,}",
            )  # fmt: skip

    def _find_unmoved(self, step: Step) -> Iterator[Broken]:
        if self._is_moved or step.number - self._first_step < self.moved_within:
            return
        self._is_moved = True
        now = fingerprints(self._trained)
        still = [name for name, mark in now.items() if self._started.get(name) == mark]
        count = plural(len(now), "trained tensor")
        if len(still) == len(now):
            yield broken("never_moved", "no weight moved", f"all of {count} are as they began")
        elif still and self.state.shards is None:  # rows on a rank may be of tokens that nobody reads
            said = f"{first_few(still)} of {count}"
            what = "some trained weights never moved"
            yield replace(broken("tensor_not_moved", what, said), severity="warning")

    def _find_moved(self) -> Iterator[Broken]:
        """Frozen tensors are as they began: a part of them each time."""
        now = fingerprints(self._part(self._frozen))
        moved = [name for name, mark in now.items() if self._started.get(name) != mark]
        self._turn += 1
        if moved:
            yield broken("frozen_moved", "frozen weights moved", first_few(moved))

    def _agree(self, mine: Sequence[Broken]) -> tuple[list[Broken], list[int]]:
        """Broken rules of all ranks, as rank 0 can tell them, and ranks whose weights differ.

        Beside them, each rank's own time of a step in microseconds.
        """
        # All at first, as ranks may begin apart.
        bits = list(fingerprints(self._trained if self._turn == 1 else self._part(self._trained)).values())
        kinds = list(ADVICE)
        told = [hash(tuple(bits)) & (2**52 - 1), sum(1 << kinds.index(each.kind) for each in mine)]
        told.append(self.stragglers.microseconds())
        table = torch.zeros(self.world.size, 3, dtype=torch.int64)
        table[self.world.rank] = torch.tensor(told)
        self.world.total([table])
        found = list(mine)
        for rank, (_, mask, _) in enumerate(table.tolist()):
            theirs = [kind for place, kind in enumerate(kinds) if mask >> place & 1]
            known = {each.kind for each in found}
            found += [
                broken(kind, f"rank {rank} broke a rule", kind.replace("_", " "))
                for kind in theirs if kind not in known
            ]  # fmt: skip
        marks = table[:, 0].tolist()
        is_alike = self.state.shards is None  # else each rank holds other rows
        if is_alike and (other := [rank for rank, mark in enumerate(marks) if mark != marks[0]]):
            said = f"those of rank {first_numbers(other)} differ from those of rank 0"
            found.append(broken("ranks_differ", "the ranks do not hold the same weights", said))
        return found, table[:, 2].tolist()

    @cached_property
    def _trained(self) -> dict[str, Tensor]:
        return {name: each for name, each in self.state.parameters.items() if each.requires_grad}

    @cached_property
    def _frozen(self) -> dict[str, Tensor]:
        return {name: each for name, each in self.state.parameters.items() if not each.requires_grad}

    def _part(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A part of some tensors, so that all come once in several steps."""
        mine = list(tensors)[self._turn % self._parts :: self._parts]
        return {name: tensors[name] for name in mine}

    @property
    def _log_every_steps(self) -> int:
        return self.state.course.recipe_at(self.state.step).records.log_every_steps or 1

    @property
    def _parts(self) -> int:
        return -(-_PASS_STEPS // self._log_every_steps)

    def _break(self, kind: str, what: str, evidence: str) -> None:
        self._pending.append(broken(kind, what, evidence))
