"""TrainCheck's 20 silent errors, as far as etude's loop can have them: is each named within one log interval?

python benchmarks/watch/silent.py [--only PATTERN]

Each is put into a tiny run of 100 steps with a log step every 5, of one process or of two ranks; beside each
stands the same run without it. The list is that of arXiv:2506.14813 (section 5.1) and of its reproductions;
the faults were written anew from their root causes. Writes results/watch_silent.json.
"""

import argparse
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import FOLDER, write_result

from etude import Options, Training
from etude.data.loader import Loader
from etude.engine import loop
from etude.engine.checkpoint import take_snapshot
from etude.engine.loop import Objective, TrainState
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.errors import EtudeError
from etude.plan.length import choose_length
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import list_runs
from watch.grid import quick
from watch.meddling import Batches, Given, Meddle, accumulate, meddled, replaced

CLAIM = "watch: the analogues of TrainCheck's silent errors are named within one log interval"
STEPS, LOG_EVERY, ONSET = 100, 5, 42
_PATIENCE = 120  # seconds, for ranks that wait for each other
Patch = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Silent:
    """One silent error: its root cause there, its analogue here, and the kinds that name it.

    onset    the step after which it acts; 0: from the start
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

        def update(state: TrainState, grads: list[torch.Tensor], totals: Any, settings: Any) -> Any:
            late = state.step >= ONSET
            return real(state, grads, totals, change(state, grads, settings) if late else settings)

        with replaced(loop, "_update", update):
            yield

    return patched


def at_sum(change: Callable[[World, list[torch.Tensor], int, Callable[[Any], None]], None]) -> Patch:
    """A patch that does something else in place of the exchange of a step, after the onset."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        real = loop._sum_over_ranks

        def total(state: TrainState, totals: torch.Tensor, world: World) -> list[torch.Tensor]:
            if state.step < ONSET:
                return real(state, totals, world)
            for parameter in state.optimizer.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = [each.grad for each in state.optimizer.parameters if each.grad is not None]
            change(world, [*grads, totals], state.step, world.sum)
            return grads

        with replaced(loop, "_sum_over_ranks", total):
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
        of("first_loss_off"), 0, is_continued=True, patch=at_assembly(draw_again)),
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
        of("checkpoint_differs"), 0, patch=other_checkpoint),
}  # fmt: skip


NONE = {name: each.none for name, each in ERRORS.items() if each.none}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="errors whose name has this pattern")
    parser.add_argument("--rank", nargs=2, metavar=("ERROR", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        name, folder = options.rank
        run(ERRORS[name.removeprefix("clean-")], not name.startswith("clean-"), Path(folder))
        return
    for name, error in ERRORS.items():
        if not error.none and re.search(options.only, name):
            made = tried(name, error)
            result = read_results() | {name: made}
            print(name, result[name], flush=True)
            write_result("watch_silent", CLAIM, {"errors": result, "without_analogue": NONE}, table(result))


def tried(name: str, error: Silent) -> dict[str, Any]:
    """An error and its clean twin: alarms, and steps from the onset to the first that names it."""
    faulty, clean = judge(name, error), judge(f"clean-{name}", error)
    delay = next((step - error.onset for step, kind in faulty if kind in error.kinds), None)
    return {
        "cause": error.cause, "analogue": error.analogue, "ranks": error.ranks, "onset": error.onset,
        "found": faulty, "delay": delay, "clean": clean,
    }  # fmt: skip


def read_results() -> dict[str, Any]:
    """The errors that were tried before; a part of them may be tried again."""
    path = FOLDER / "results" / "watch_silent.json"
    return dict(json.loads(path.read_text())["errors"]) if path.is_file() else {}


def table(result: dict[str, Any]) -> list[list[str]]:
    rows = [["error", "analogue", "found by", "steps after its onset", "clean twin"]]
    for name, error in ERRORS.items():
        if name in result:
            made = result[name]
            by = dict.fromkeys(kind for _, kind in made["found"] if kind in error.kinds)
            heard = ", ".join(kind for _, kind in made["clean"]) or "silent"
            rows.append([name, error.analogue, ", ".join(by) or "nothing", str(made["delay"]), heard])
        elif error.none:
            rows.append([name, f"none: {error.none}", "", "", ""])
    named = sum(each["delay"] is not None and each["delay"] <= LOG_EVERY for each in result.values())
    heard_one = sum(bool(each["clean"]) for each in result.values())
    of = f"{len(result)} of {len(ERRORS)}"
    rows.append(["all", of, f"{named} within one log interval", "", f"{heard_one} heard an alarm"])
    return rows


def judge(name: str, error: Silent) -> list[tuple[int, str]]:
    """Train an error, or its clean twin: steps and kinds of all alarms."""
    with tempfile.TemporaryDirectory(prefix="silent-") as folder:
        home = Path(folder)
        write_rows(home / "rows.jsonl")
        if error.ranks == 1:
            run(error, not name.startswith("clean-"), home)
        else:
            run_ranks(name, error.ranks, home)
        events = [entry.event for entry in list_runs(home / "runs")[0].ledger().entries]
    alarms = [each for each in events if isinstance(each, Finding) and each.severity in ("warning", "error")]
    return [(each.step, each.kind) for each in alarms if each.kind]


def run_ranks(name: str, ranks: int, home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, "--rank", name, str(home)]
    started = [
        subprocess.Popen(
            command, env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.DEVNULL
        )
        for rank in range(ranks)
    ]
    for each in started:
        try:
            each.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            for other in started:
                other.kill()


def run(error: Silent, is_faulty: bool, home: Path) -> None:
    """Train 100 steps, with the error or without it."""
    recipe = recipe_of(home, error)
    model = loss = None
    if error.is_own:
        model, loss = Own(is_faulty), own_loss
    weights = None
    if error.is_continued:
        with quick():
            first = Training(recipe, Options(runs=home / "first"))
            for _ in first:
                pass
        weights = str(first.run.path)
    options = Options(runs=home / "runs", model=model, loss=loss, weights=weights)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quick())
        if is_faulty and error.patch:
            stack.enter_context(error.patch())
        if is_faulty and error.meddle:
            stack.enter_context(meddled(error.meddle))
        try:
            for _ in Training(recipe, options):
                pass
        except EtudeError as ended:
            print(f"ended: {ended}", file=sys.stderr)


def write_rows(path: Path) -> None:
    """The beginnings of the files of Python's library."""
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [each.read_text("utf-8", "replace")[:1200] for each in library]
    random.Random(1).shuffle(texts)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))


def recipe_of(home: Path, error: Silent) -> Recipe:
    """A small decoder."""
    rows = home / "rows.jsonl"
    values: dict[str, Any] = {
        "name": "silent", "model": {"n_layer": 2, "n_head": 2, "n_embd": 64},
        "tokenizer": {"train_vocab_size": 512},
        "data": {"train": [{"path": str(rows)}], "validation_ratio": 0.1},
        "train": {"steps": STEPS, "seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "device": "cpu",
                  "precision": "fp32", "devices": error.ranks},
        "optim": {"learning_rate": 1e-2}, "schedule": {"warmup_steps": 10},
        "evaluate": {"every_steps": 25}, "checkpoint": {"every_steps": 50},
        "records": {"log_every_steps": LOG_EVERY},
    }  # fmt: skip
    for key, value in error.changes.items():
        section, name = key.split(".")
        values[section][name] = value
    return recipe_from(values)


if __name__ == "__main__":
    main()
