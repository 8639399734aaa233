"""The memory of a training step before it is run: how much, of what, and at which moment.

A step of the plan's own model, objective and optimizer is traced without numbers (`trace.py`), so that no
formula of an architecture has to follow its code. Source of the problem: LLMem (arXiv:2404.10933), xMem
(arXiv:2510.21048).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from etude.data.batch import NO_TARGET, Batch, NumpyBatch
from etude.data.loader import StepBatches, longest_batch
from etude.engine.loop import Objective, TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import DTYPES, Precision
from etude.engine.world import World
from etude.errors import EtudeError
from etude.models.build import adapt
from etude.models.families.family import Config
from etude.models.families.table import family_of
from etude.models.parts import head_modules
from etude.models.weights import keeps_fp32
from etude.objectives.choose import join_kinds
from etude.objectives.own import OwnLoss
from etude.plan import Plan
from etude.plan.allocator import Replay
from etude.plan.four_bits import quantize
from etude.plan.pieces import gathered_bytes, in_pieces
from etude.plan.stand_ins import standing_in
from etude.plan.trace import Block, Trace, Tracer, fake_weights, tracing
from etude.plan.workspace import fixed_bytes, workspace_of
from etude.recipe.course import Course
from etude.recipe.schema import Recipe

# CUDA, its libraries and kernels in a process: 808 MB on an H100 with torch 2.11, driver and libraries of it.
_CONTEXT_BYTES = 810_000_000
_STEPS = 3
_FEW_LAYERS = 6
_MANY_LAYERS = 256  # from where on a trace takes seconds
_SOME_LAYERS = (32, 64)  # by which the memory of many is known
_DROPOUT = re.compile(r"\w*(dropout|pdrop)(_prob)?")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """All that the memory of a step depends on.

    model        configuration of the model; labels: its outputs as a classifier, 0 if it is none
    batch        the micro-batch that takes most memory
    accumulates  whether a step has several micro-batches
    pieces       ranks that hold rows of each weight; 1: each holds all
    device       cpu or cuda, which need not be there
    """

    recipe: Recipe
    model: Config
    labels: int = 0
    objective: Objective
    batch: NumpyBatch
    accumulates: bool
    device: torch.device
    precision: str
    pieces: int = 1


@dataclass(frozen=True)
class Share:
    """Alike tensors that are alive at the peak.

    category  as in `Memory.parts`
    place     the module that made them, with * for the number of a block
    what      operation, dtype and shape of one of them
    """

    category: str
    place: str
    what: str
    count: int
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """The peak of a step, in bytes of one device.

    peak      bytes of live tensors at the peak, as the allocator counts them; of a GPU its fixed part, too
    phase     forward, loss, backward or optimizer: when the peak is
    parts     bytes at the peak by category; they add up to the peak
    phases    the peak of each phase
    reserved  bytes that the allocator of a GPU takes from the device; the peak on a CPU
    device_bytes  bytes of the device that a process needs: of a GPU with CUDA itself; of a CPU the tensors
    shares    tensors alive at the peak, largest first; none where they follow from models of fewer layers
    """

    peak: int
    phase: str
    parts: dict[str, int]
    phases: dict[str, int]
    reserved: int
    device_bytes: int
    shares: tuple[Share, ...] = field(repr=False)

    @property
    def added(self) -> int:
        """Bytes at the peak beside the weights, which a process holds before its first step."""
        return self.peak - self.parts["weights"]


class UntraceableError(EtudeError):
    """A model of transformers has code that looks at numbers, so that its step cannot be traced."""


def estimate_memory(subject: Subject) -> Memory:
    """Trace a step and find its peak. Takes no memory to speak of, and no random number.

    Raises: UntraceableError; etude's own models are all traced.
    """
    try:
        trace = trace_step(subject)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError, AttributeError) as error:
        if family_of(subject.model).name != "transformers":
            raise
        reason = " ".join(str(error).split())[:100]
        raise UntraceableError(f"the memory of a step cannot be traced for this model ({reason})") from error
    return summarize(trace, subject.device)


def is_traceable(plan: Plan) -> bool:
    """False where a trace would run code of the user's, which may do more than compute."""
    return plan.model is not None and not any(isinstance(task.kind, OwnLoss) for task in plan.tasks)


def memory_of(plan: Plan, micro_batch_size: int, recipe: Recipe | None = None) -> Memory:
    """The memory of a step of a plan in micro-batches of a size, of tasks that of the largest.

    recipe: in the place of the plan's, of the same model and data.
    """
    subjects = subjects_of(plan, micro_batch_size, recipe)
    return max(map(_memory_by_layers, subjects), key=lambda memory: memory.peak)


def _memory_by_layers(subject: Subject) -> Memory:
    """The memory of a step; of very many layers that are alike in a straight line from two traces of fewer.

    It is a whole trace where layers differ, or where the peak would come in another phase than in these.
    """
    model: Any = subject.model
    layers = getattr(model, "n_layer", 0)
    if layers <= _MANY_LAYERS or hasattr(model, "n_decoder_layer") or getattr(model, "layer_window", None):
        return estimate_memory(subject)
    few, more = _SOME_LAYERS
    less, known = (estimate_memory(replace(subject, model=replace(model, n_layer=n))) for n in (few, more))

    def line(a: int, b: int) -> int:
        return a + (layers - few) * (b - a) // (more - few)

    def lines(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
        return {name: line(a.get(name, 0), b.get(name, 0)) for name in {**b, **a}}

    parts, phases = lines(less.parts, known.parts), lines(less.phases, known.phases)
    if {less.phase, known.phase} != {max(phases, key=lambda name: phases[name])}:
        return estimate_memory(subject)
    return Memory(
        peak=sum(parts.values()), phase=known.phase, parts=parts, phases=phases,
        reserved=line(less.reserved, known.reserved),
        device_bytes=line(less.device_bytes, known.device_bytes), shares=(),
    )  # fmt: skip


def about_memory(plan: Plan, micro_batch_size: int, recipe: Recipe | None = None) -> float | None:
    """Bytes of the device by steps with one and two layers, to a hundredth if the others are like them.

    Arguments as for `memory_of`. None for models that have no such number, or hardly more layers.
    """
    layers = getattr(plan.model, "n_layer", 0)
    if layers < _FEW_LAYERS or hasattr(plan.model, "n_decoder_layer"):
        return None
    found = []
    for subject in subjects_of(plan, micro_batch_size, recipe):
        model: Any = subject.model
        one, two = (
            estimate_memory(replace(subject, model=replace(model, n_layer=count))).device_bytes
            for count in (1, 2)
        )
        found.append(one + (layers - 1) * (two - one))
    return max(found)


def subjects_of(plan: Plan, micro_batch_size: int, recipe: Recipe | None = None) -> list[Subject]:
    """The longest micro-batch of each task of a plan; arguments as for `memory_of`."""
    recipe = recipe or plan.recipe
    assert plan.model is not None, "a module of the user's has no configuration"
    return [
        Subject(
            recipe=recipe,
            model=plan.model,
            labels=plan.labels,
            objective=join_kinds(plan.tasks),
            batch=replace(
                longest_batch(task.corpus.train, micro_batch_size, recipe.data.attend_across_documents),
                task=task.name,
            ),
            accumulates=micro_batch_size * recipe.train.devices < plan.global_batch_size,
            device=plan.device,
            precision=plan.precision,
            pieces=recipe.train.devices if plan.parallel.kind == "shard" else 1,
        )
        for task in plan.tasks
    ]


def full_rows(recipe: Recipe, size: int, labels: int = 0) -> NumpyBatch:
    """A micro-batch of full rows, where the data are not known."""
    train, shape = recipe.train, (size, recipe.train.seq_len)
    tokens = np.zeros(shape, dtype=np.int64)
    if recipe.kind.model == "encoder-decoder":
        length = train.target_len or train.seq_len
        targets = np.zeros((1, size * length), dtype=np.int64)
        return Batch(
            tokens=tokens.reshape(1, -1), labels=targets, lengths=(train.seq_len,) * size,
            target_lengths=(length,) * size,
        )  # fmt: skip
    if labels:
        return Batch(
            tokens=tokens, labels=np.full(shape, NO_TARGET), classes=np.ones((size, labels), np.float32)
        )
    if recipe.kind.hides_tokens:
        scored = np.arange(int(tokens.size * train.mask_ratio))
        return Batch(tokens=tokens, labels=tokens, scored=scored)
    return Batch(tokens=tokens, labels=tokens)


def trace_step(subject: Subject) -> Trace:
    """The storages of one step, whose optimizer has made steps before."""
    recipe, device = subject.recipe, subject.device
    model = _empty(subject)
    tracer = Tracer(device, workspace_of(device))
    with standing_in(device), tracing(tracer, model):
        fake_weights(model, tracer, lambda name, tensor: _dtype_of(subject, model, name, tensor))
        adapt(recipe, model)
        tracer.note(model.parameters(), "weights")
        optimizer = Optimizer(model, recipe.optim)
        for part in optimizer.parts:
            part.state.update({parameter: part.begin(parameter) for parameter in part.parameters})
        tracer.note((each for _, state in optimizer.states() for each in state.values()), "optimizer state")
        if subject.accumulates:
            for parameter in optimizer.parameters:
                parameter.grad = torch.zeros_like(parameter)
            tracer.note((parameter.grad for parameter in optimizer.parameters), "gradients")
        precision = Precision(
            subject.precision, DTYPES[subject.precision], device, torch.tensor(1.0), torch.tensor(0.0)
        )
        state = TrainState(model, optimizer, precision, Course(recipe, 1))
        if subject.pieces > 1:
            for kind, nbytes in gathered_bytes(model, DTYPES[subject.precision]).items():
                tracer.hold(nbytes, kind)
        tracer.begin_step(fixed_bytes(device))
        step = StepBatches(0, 0, 1, np.zeros(1, dtype=np.int64), [subject.batch])
        is_alone = recipe.train.devices == 1 or subject.pieces > 1
        world = World(device) if is_alone else _Rank(device, size=recipe.train.devices)
        next(train(state, [step], subject.objective, world))
    return tracer.trace if subject.pieces == 1 else in_pieces(tracer.trace, model, subject.pieces)


def summarize(trace: Trace, device: torch.device) -> Memory:
    """The peak of a trace, and what is alive at it."""
    replay = Replay(device.type)
    best, at, phase, phases = 0, 0, "forward", Counter[str]()
    for place, event in enumerate(trace.events):
        if event > 0:
            phase = trace.blocks[event - 1].phase
            total = replay.begin(event, trace.blocks[event - 1].nbytes)
        else:
            total = replay.end(-event)
        phases[phase] = max(phases[phase], total)
        if total > best:
            best, at = total, place
    live: set[int] = set()
    for event in trace.events[: at + 1]:
        (live.add if event > 0 else live.discard)(abs(event) - 1)
    blocks = [trace.blocks[number] for number in live]
    parts = Counter[str]()
    for block in blocks:
        parts[category(block)] += block.nbytes
    if rounding := best - sum(parts.values()):
        parts["rounding"] = rounding
    _repeat(trace, replay)
    return Memory(
        peak=best,
        phase=trace.blocks[abs(trace.events[at]) - 1].phase,
        parts=dict(parts.most_common()),
        phases=dict(phases),
        reserved=replay.reserved,
        device_bytes=replay.reserved + (_CONTEXT_BYTES if device.type == "cuda" else 0),
        shares=tuple(_shares(blocks)),
    )


def _repeat(trace: Trace, replay: Replay) -> None:
    """Replay the step again, as a GPU's allocator takes more in later steps than in the first."""
    step = trace.events[trace.step_begins :]
    made = {event for event in step if event > 0}
    for turn in range(1, _STEPS):
        for event in step:
            number = abs(event) + turn * len(trace.blocks)
            if event > 0:
                replay.begin(number, trace.blocks[event - 1].nbytes)
            elif -event in made:
                replay.end(number)


def category(block: Block) -> str:
    """The use of a storage, as people ask for it."""
    if block.kind:
        return block.kind
    if block.phase == "forward":
        return "saved activations" if block.kept else "temporaries"
    if block.phase == "loss":
        return "logits and loss"
    return "recomputed activations" if block.phase == "backward" and block.module else "temporaries"


class _Rank(World):
    """One of several ranks that are not there."""

    def begin_exchange(self, flat: Tensor, reduction: Any = None) -> Callable[[], None]:
        return lambda: None


def _empty(subject: Subject) -> nn.Module:
    """The modules of a subject, with the dropout of the recipe, which a pretrained model gets too."""
    config: Any = subject.model
    if subject.recipe.model.from_ is not None:
        known = {each.name for each in fields(config)}
        dropouts = dict.fromkeys(known & {"dropout", "attention_dropout"}, subject.recipe.model.dropout)
        config = replace(config, **dropouts)
    model = family_of(config).empty(config, subject.labels)
    for module in model.modules() if hasattr(model, "base_model_prefix") else ():  # of transformers
        for name, value in vars(module).items():
            if _DROPOUT.fullmatch(name) and isinstance(value, float):
                setattr(module, name, subject.recipe.model.dropout)
        if isinstance(module, nn.Dropout):
            module.p = subject.recipe.model.dropout
    if subject.recipe.model.quantize is not None:
        quantize(model, DTYPES[subject.precision])
    return model


def _dtype_of(subject: Subject, model: nn.Module, name: str, tensor: Tensor) -> torch.dtype:
    """Trained weights are fp32, frozen ones are held as they are computed with."""
    if subject.recipe.adapter is None or not tensor.is_floating_point():
        return tensor.dtype
    dtype, is_head = DTYPES[subject.precision], name.startswith(tuple(head_modules(model)))
    is_whole = family_of(subject.model).name == "encoder" or is_head
    return torch.float32 if is_whole or keeps_fp32(name, dtype) else dtype


def _shares(blocks: Sequence[Block]) -> Iterator[Share]:
    counts, sizes = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for block in blocks:
        key = category(block), block.place, block.what
        counts[key] += 1
        sizes[key] += block.nbytes
    for (kind, place, what), nbytes in sizes.most_common():
        yield Share(kind, place, what, counts[kind, place, what], nbytes)
