"""TrainCheck's 20 silent errors, each with its analogue in etude's loop, or the reason why it has none.

The list is that of arXiv:2506.14813 (section 5.1) and of its reproductions; the faults were written anew from
their root causes.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from etude.data.loader import Loader
from etude.engine import loop
from etude.engine.checkpoint import take_snapshot
from etude.engine.loop import Objective, TrainState
from etude.engine.parallel import Replicas
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.plan.length import choose_length
from watch.meddling import Batches, Given, Meddle, accumulate, replaced

ONSET = 42
Patch = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Silent:
    """One silent error: its root cause there, its analogue here, and the kinds that name it.

    onset    the step after which it acts, as that of the first checkpoint; 0: from the start
    ranks    that the run has; `patch` and `meddle` may ask for the rank by the environment
    changes  of the recipe, which its clean twin has as well
    none     why there is no analogue
    """

    cause: str
    analogue: str = ""
    kinds: frozenset[str] = frozenset()
    onset: int = 0
    ranks: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    is_own: bool = False
    is_continued: bool = False
    patch: Patch | None = None
    meddle: Meddle | None = None
    none: str = ""


class Own(nn.Module):
    """A model of the user's with a frozen embedding, which a forward pass may write to."""

    def __init__(self, moves: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.norm, self.head = nn.Embedding(512, 32), nn.LayerNorm(32), nn.Linear(32, 512)
        self.embed.requires_grad_(False)
        self.moves = moves

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.moves and self.training:
            self.embed.weight.data.mul_(1 - 1e-4)
        scores: torch.Tensor = self.head(self.norm(self.embed(tokens)))
        return scores


def own_loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    scores, labels = model(batch.tokens).flatten(0, 1), batch.labels.flatten()
    return functional.cross_entropy(scores, labels, reduction="sum"), labels.numel()


def is_other() -> bool:
    """True on a rank besides rank 0."""
    return os.environ.get("RANK", "0") != "0"


def at_update(change: Callable[[TrainState, list[torch.Tensor], Any], Any]) -> Patch:
    """The settings of updates after the onset, and what is done before them."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        real = loop._update

        def update(
            state: TrainState, grads: list[torch.Tensor], totals: Any, settings: Any, layout: Any
        ) -> Any:
            late = state.step >= ONSET
            return real(state, grads, totals, change(state, grads, settings) if late else settings, layout)

        with replaced(loop, "_update", update):
            yield

    return patched


def at_sum(change: Callable[[World, list[torch.Tensor], int, Callable[[Any], None]], None]) -> Patch:
    """A patch that does something else in place of the exchange of a step, after the onset."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        real, begin = loop._sum_over_ranks, Replicas.begin_last
        is_late = [ONSET == 0]

        def begin_last(layout: Replicas) -> None:
            if not is_late[0]:
                begin(layout)

        def total(
            state: TrainState, totals: torch.Tensor, layout: Replicas, lacks: int
        ) -> tuple[list[torch.Tensor], str | None]:
            is_late[0] = state.step + 1 >= ONSET  # of the next step, whose buckets are then left alone
            if state.step < ONSET:
                return real(state, totals, layout, lacks)
            world = layout.world
            for parameter in state.optimizer.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = [each.grad for each in state.optimizer.parameters if each.grad is not None]
            change(world, [*grads, totals], state.step, world.sum)
            return grads, None

        with replaced(loop, "_sum_over_ranks", total), replaced(Replicas, "begin_last", begin_last):
            yield

    return patched


def bypass(every: int) -> Patch:
    """Ranks leave the gradients out of the exchange, at one of so many steps."""

    def change(world: World, tensors: list[torch.Tensor], step: int, add: Callable[[Any], None]) -> None:
        add(tensors[-1:] if step % every == 0 else tensors)

    return at_sum(change)


def lose(count: int) -> Patch:
    """The first tensors that come out of one exchange are zeros on a rank; -1: all."""

    def change(world: World, tensors: list[torch.Tensor], step: int, add: Callable[[Any], None]) -> None:
        add(tensors)
        if is_other() and step == ONSET:
            for each in tensors[: None if count < 0 else count]:
                each.zero_()

    return at_sum(change)


def exchange_others(world: World, tensors: list[torch.Tensor], step: int, add: Callable[[Any], None]) -> None:
    """One rank gives its gradients in another order than the others."""
    add([*reversed(tensors[:-1]), tensors[-1]] if is_other() else tensors)


def unclipped(state: TrainState, grads: list[torch.Tensor], settings: Any) -> Any:
    return replace(settings, max_grad_norm=None) if is_other() else settings


def at_assembly(change: Callable[[TrainState], None]) -> Patch:
    """The model is changed once it is put together."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        from etude import assemble as real
        from etude import session

        def assemble(*arguments: Any) -> Any:
            state, new_weights = real.assemble(*arguments)
            with torch.no_grad():
                change(state)
            return state, new_weights

        with replaced(session, "assemble", assemble):
            yield

    return patched


def lose_weights(state: TrainState) -> None:
    if is_other():
        state.optimizer.parameters[0].zero_()


def draw_again(state: TrainState) -> None:
    model: Any = state.model
    model.init_weights(5)


def draw_at_first_pass(state: TrainState) -> None:
    """A tensor gets its values in the first pass in training mode, which comes after an evaluation."""
    weight = state.optimizer.parameters[3]

    def draw(module: nn.Module, given: Any) -> None:
        if module.training:
            handle.remove()
            with torch.no_grad():
                weight.normal_(0, 0.02)

    handle = state.model.register_forward_pre_hook(draw)


def drop_always(state: TrainState) -> None:
    model: Any = state.model
    model.model.layers[0].register_forward_hook(lambda module, given, out: functional.dropout(out, 0.2, True))


def freeze_late(state: TrainState, batches: Batches, objective: Objective) -> Given:
    """All tensors but the norms are frozen once the optimizer has them."""

    def frozen() -> Iterator[Any]:
        for step in batches:
            if step.step == ONSET:
                for name, parameter in state.model.named_parameters():
                    parameter.requires_grad_("norm" in name)
            yield step

    return frozen(), objective


def skip_updates(state: TrainState, batches: Batches, objective: Objective) -> Given:
    """Updates after the onset are not made, as by a kernel that was compiled for steps without a gradient."""
    real = state.optimizer.step

    def step(*arguments: Any, **keywords: Any) -> None:
        if state.step < ONSET:
            real(*arguments, **keywords)

    state.optimizer.step = step  # type: ignore[method-assign]
    return batches, objective


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    with replaced(Precision, "autocast", lambda precision: contextlib.nullcontext()):
        yield


@contextlib.contextmanager
def first_row_only() -> Iterator[None]:
    """A collator that keeps the first row of each micro-batch."""
    real = Loader.load

    def load(loader: Loader, step: int) -> Any:
        read = real(loader, step)
        if step < ONSET:
            return read
        rows = [each.map(lambda array: array[:1] if array.ndim > 1 else array) for each in read.micro_batches]
        return replace(read, micro_batches=rows)

    with replaced(Loader, "load", load):
        yield


@contextlib.contextmanager
def same_rows() -> Iterator[None]:
    """All ranks read the samples of rank 0."""
    real = Loader.load
    with replaced(Loader, "load", lambda loader, step: real(replace(loader, rank=0), step)):
        yield


@contextlib.contextmanager
def half_the_steps() -> Iterator[None]:
    from etude import plan

    real = choose_length

    def choose(*arguments: Any) -> Any:
        length = real(*arguments)
        return replace(length, steps=length.steps // 2)

    with replaced(plan, "choose_length", choose):
        yield


@contextlib.contextmanager
def other_checkpoint() -> Iterator[None]:
    """A checkpoint holds one tensor as it was drawn, not as it was trained."""
    from etude import saving

    real = take_snapshot

    def take(*arguments: Any) -> Any:
        snapshot = real(*arguments)
        name = list(snapshot.weights)[2]
        return replace(snapshot, weights={**snapshot.weights, name: torch.zeros_like(snapshot.weights[name])})

    with replaced(saving, "take_snapshot", take):
        yield


def of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


FROZEN, DIFFER = of("tensor_not_stepped", "tensor_not_moved"), of("ranks_differ")
ERRORS: dict[str, Silent] = {
    "PT-FORUM84911": Silent("all layers but the norms were frozen by mistake", "the same, once the optimizer is built",
        FROZEN, ONSET, meddle=freeze_late),
    "SO-60335387": Silent("gradients were never set to zero", "the same", of("gradients_kept"), ONSET,
        meddle=accumulate(1000, ONSET)),
    "PT-115607": Silent("a compiled step was used again where it did not fit, and updates were lost",
        "updates are not made", of("tensor_not_stepped", "optimizer_state_lost"), ONSET, meddle=skip_updates),
    "DS-1801": Silent("clipping left out the weights that are copied to other ranks, which drifted",
        "one rank does not clip", of("ranks_differ", "clip_skipped"), ONSET, 2, {"train.max_grad_norm": 0.1},
        patch=at_update(unclipped)),
    "PT-104336": Silent("a move between devices cut the tie of the gradients to their sum over ranks",
        "gradients are left out of the sum", DIFFER, ONSET, 2, patch=bypass(1)),
    "X-JXMNOP": Silent("the model was wrapped for the sum over ranks at times only",
        "gradients are left out of every second sum", DIFFER, ONSET, 2, patch=bypass(2)),
    "PT-84803": Silent("data was lost between GPUs", "a tensor of one sum is lost on a rank", DIFFER, ONSET, 2,
        patch=lose(1)),
    "PT-96600": Silent("data was lost between GPUs", "a whole sum is lost on a rank", DIFFER, ONSET, 2,
        patch=lose(-1)),
    "BAICHUAN2-86": Silent("data was lost between GPUs when a model was put on two", "a tensor of a rank begins as zeros",
        DIFFER, 0, 2, patch=at_assembly(lose_weights)),
    "LT-725": Silent("autocast did not reach all operations", "the model runs without autocast", of("precision_off"),
        0, changes={"train.precision": "fp16"}, patch=without_autocast),
    "MM-702": Silent("layers that were to be frozen were not", "frozen weights move", of("frozen_moved"), 0, is_own=True),
    "PT-51800": Silent("weights were set up at the first pass in training, and an evaluation came before it",
        "a tensor gets its values in the first pass of training", of("update_wrong"), 0,
        patch=at_assembly(draw_at_first_pass)),
    "TF-17877": Silent("weights were initialised several times", "loaded weights are drawn anew",
        of("weights_not_loaded"), 0, is_continued=True, patch=at_assembly(draw_again)),
    "TF-33844": Silent("dropout stayed on in evaluation", "the same", of("evaluation_random"), 0,
        patch=at_assembly(drop_always)),
    "TF-34204": Silent("a processor returned one row of a batch of fifty", "a collator keeps the first row",
        of("samples_off_plan"), ONSET, patch=first_row_only),
    "SO-67180955": Silent("loader workers had equal seeds and gave the same rows", "ranks read the rows of rank 0",
        of("samples_off_plan"), 0, 2, patch=same_rows),
    "DS-5794": Silent("ranks with other experts made other exchanges, and hung", "a rank exchanges in another order",
        DIFFER, ONSET, 2, patch=at_sum(exchange_others)),
    "TF-23723": Silent("the limit of new tokens was computed before the prompt was cut",
        none="it is in generation, and no answer is trained on"),
    "TF-33455": Silent("the number of steps was computed wrongly, and training ended early", "half the steps",
        of("steps_off_plan"), 0, patch=half_the_steps),
    "TF-29903": Silent("a checkpoint was saved from a broken state", "a checkpoint holds another tensor than was trained",
        of("checkpoint_differs"), 25, patch=other_checkpoint),
}  # fmt: skip


NONE = {name: each.none for name, each in ERRORS.items() if each.none}
