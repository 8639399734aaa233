"""The fault plan: faults that are put into a real run of etude, each with its onset and its true cause.

A fault changes the rows, the recipe or its course, brings a loss of its own, or wraps parts of the loop in
this process. Each has three strengths, the most severe first. The watch is told nothing of it.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etude import logits
from etude.engine.batch import DeviceBatch
from watch.cases import ONSET, Rows
from watch.meddling import (
    Meddle,
    accumulate,
    cut_gradient,
    drop_gradients,
    drop_state,
    fast_schedule,
    freeze,
    leak_memory,
    move_frozen,
    overflow,
    poison,
    repeat_batches,
    replaced,
    slow_loader,
)

Loss = Callable[[torch.nn.Module, DeviceBatch], tuple[torch.Tensor, torch.Tensor]]
RATE = {"divergence", "spike", "spikes", "non_finite", "skipped_steps", "only_frequencies"}
STILL = {
    "never_moved",
    "tensor_not_moved",
    "tensor_not_stepped",
    "trainable_not_stepped",
    "gradient_not_reaching",
}
REPEATED = {"duplicates", "first_pass_collapse", "overfitting"}


@dataclass(frozen=True)
class Fault:
    """One fault: its true cause, how it is put into a run, and what the watch is to say of it.

    cause      the truth, for people
    kinds      kinds of findings that name a condition which the fault brings about
    named      those among them that name the cause by themselves
    words      a word of the first cause of another finding, by which the cause is named too
    strengths  what `put` makes of the three severities
    traits     of combinations that can have it; a set of traits each
    onset      the step after which it acts
    origin     watch.md: one of the twenty; traincheck: analogue of a reproduction of TrainCheck
    is_curable whether a change of the recipe can take it away
    """

    cause: str
    kinds: set[str]
    strengths: tuple[float, float, float]
    named: set[str] = field(default_factory=set)
    words: str = "$none"
    traits: tuple[set[str], ...] = (set(),)
    onset: int = 0
    origin: str = "watch.md"
    is_curable: bool = False
    rows: Callable[[Rows, Rows, random.Random, float], tuple[Rows, Rows]] | None = None
    recipe: Callable[[float, float], dict[str, Any]] | None = None  # of the strength and the usual rate
    course: Callable[[float], float] | None = None  # factor on the learning rate, from the onset on
    loss: Callable[[float], Loss] | None = None
    meddle: Callable[[float], Meddle] | None = None
    patch: Callable[[float], contextlib.AbstractContextManager[None]] | None = None


def own_loss(
    change: Callable[[DeviceBatch], torch.Tensor] = lambda batch: batch.labels, scale: float = 1
) -> Loss:
    """The loss of a user: cross-entropy of all targets that `change` makes of a batch, times `scale`."""

    def loss_sum(model: torch.nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = change(batch)
        keep = labels != -100
        losses = functional.cross_entropy(logits(model, batch)[keep].float(), labels[keep], reduction="sum")
        return losses * (scale if scale > 0 else 1 / keep.sum()), keep.sum()

    return loss_sum


def _unshifted(share: float) -> Loss:
    """A share of the targets is the token that the model reads there."""
    return own_loss(lambda batch: _where(share, batch, batch.tokens))


def _shifted_twice(share: float) -> Loss:
    return own_loss(lambda batch: _where(share, batch, _roll(batch.labels)))


def _prompt_scored(share: float) -> Loss:
    """A share of the tokens that are not to be learnt is scored: the next token of each prompt."""

    def change(batch: DeviceBatch) -> torch.Tensor:
        following, place = _roll(batch.tokens), torch.arange(batch.tokens.shape[1]) % 100
        return torch.where((batch.labels == -100) & (place < 100 * share), following, batch.labels)

    return own_loss(change)


def _where(share: float, batch: DeviceBatch, other: torch.Tensor) -> torch.Tensor:
    """The labels, of which a share of the places, the same in every batch, has others."""
    place = torch.arange(batch.labels.shape[1]) * 37 % 100
    return torch.where((batch.labels != -100) & (place < 100 * share), other, batch.labels)


def _roll(labels: torch.Tensor) -> torch.Tensor:
    return torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], -100)), 1)


def _pad(train: Rows, held_out: Rows, draw: random.Random, times: float) -> tuple[Rows, Rows]:
    """Answers with so many marks of padding behind them, in text, as a collator would write them."""
    return [
        {"instruction": row["instruction"][:40], "output": row["output"][:30] + "<pad>" * int(times)}
        for row in train
    ], held_out


def _marks(train: Rows, held_out: Rows, draw: random.Random, share: float) -> tuple[Rows, Rows]:
    """The chat template of another model, written into a share of the rows."""
    marked = [
        {
            "instruction": f"<s>[INST] {row['instruction'][:50]}",
            "output": f"[/INST] {row['output'][:70]} </s>",
        }
        for row in train
    ]
    return [new if draw.random() < share else old for new, old in zip(marked, train)], held_out


def _answers_in_prompts(train: Rows, held_out: Rows, draw: random.Random, share: float) -> tuple[Rows, Rows]:
    """Questions that hold the answer, as wrong columns give; short, so that both fit into a sample."""
    return [
        {
            "instruction": f"{row['output'][:50]} {row['instruction'][:30]}",
            "input": "",
            "output": row["output"][:50],
        }
        if draw.random() < share
        else row
        for row in train
    ], held_out


def _duplicates(train: Rows, held_out: Rows, draw: random.Random, share: float) -> tuple[Rows, Rows]:
    """Rows of which a share repeats others."""
    kept = train[: max(round(len(train) * (1 - share)), 1)]
    copies = [dict(draw.choice(kept[: max(len(kept) // 8, 1)])) for _ in range(len(train) - len(kept))]
    rows = kept + copies
    draw.shuffle(rows)
    return rows, held_out


def _leak(train: Rows, held_out: Rows, draw: random.Random, share: float) -> tuple[Rows, Rows]:
    """A share of the held-out rows is in training, 16 times each."""
    leaked = held_out[: max(round(share * len(held_out)), 1)] * 16
    rows = leaked + train[: len(train) - len(leaked)]
    draw.shuffle(rows)
    return rows, held_out


def _shuffle_labels(train: Rows, held_out: Rows, draw: random.Random, share: float) -> tuple[Rows, Rows]:
    """A share of the rows has the label, answer or target of another row."""
    name = next(name for name in ("lang", "labels", "output", "target") if name in train[0])
    chosen = [index for index in range(len(train)) if draw.random() < share]
    given = [train[index][name] for index in chosen]
    draw.shuffle(given)
    swapped = dict(zip(chosen, given))
    return [{**row, name: swapped.get(index, row[name])} for index, row in enumerate(train)], held_out


@contextlib.contextmanager
def _no_mask(share: float) -> Iterator[None]:
    """A share of the heads of a decoder sees the tokens that come later."""
    from etude.models import attention

    real = functional.scaled_dot_product_attention

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **settings: Any) -> torch.Tensor:
        masked = real(q, k, v, **settings)
        if not settings.get("is_causal"):
            return masked
        seen, heads = real(q, k, v, **{**settings, "is_causal": False}), round(share * q.shape[1])
        return torch.cat((seen[:, :heads], masked[:, heads:]), 1)

    proxy = SimpleNamespace(**{name: getattr(functional, name) for name in dir(functional) if name[0] != "_"})
    proxy.scaled_dot_product_attention = attend
    with replaced(attention, "functional", proxy):
        yield


@contextlib.contextmanager
def _no_clipping(factor: float) -> Iterator[None]:
    """Gradients are not clipped, though the recipe says so."""
    from etude.engine import loop

    real = loop._update

    def update(state: Any, grads: Any, totals: Any, settings: Any, layout: Any) -> Any:
        late = state.step >= ONSET
        return real(state, grads, totals, replace(settings, max_grad_norm=None) if late else settings, layout)

    with replaced(loop, "_update", update):
        yield


@contextlib.contextmanager
def _evaluation_trains(size: float) -> Iterator[None]:
    """An evaluation moves the weights."""
    from etude.objectives.examiner import Examiner

    real = Examiner.evaluate

    def evaluate(self: Examiner, *, before: bool = False) -> Any:
        records = real(self, before=before)
        with torch.no_grad():
            for weight in self.state.optimizer.parameters:
                weight += size * weight.std(unbiased=False) * torch.randn_like(weight)
        return records

    with replaced(Examiner, "evaluate", evaluate):
        yield


def _clipped(strength: float, usual: float) -> dict[str, Any]:
    """A limit that most gradients exceed, so that it matters whether it is kept."""
    return {"optim.learning_rate": strength * usual, "train.max_grad_norm": 0.25}


def _rate(strength: float, usual: float) -> dict[str, Any]:
    return {"optim.learning_rate": strength * usual, "schedule.warmup_steps": 0}


CAUSAL, LORA, SCRATCH = ({"causal"},), ({"lora"},), ({"scratch"},)
ALPACA = ({"alpaca"},)
FAULTS: dict[str, Fault] = {
    "no_causal_mask": Fault("later tokens are seen", {"future_visible", "first_pass_collapse"}, (1, 0.5, 0.25),
        {"future_visible"}, traits=CAUSAL, patch=_no_mask),
    "labels_shifted_twice": Fault("labels are shifted twice", {"labels_shifted_twice", "labels_misplaced"},
        (1, 0.5, 0.2), {"labels_shifted_twice"}, traits=CAUSAL, loss=_shifted_twice),
    "rate_too_high": Fault("the learning rate rose", RATE | {"clip_saturation", "validation_rise"},
        (100, 30, 10), RATE - {"spike"}, "rate", onset=ONSET, course=lambda times: times),
    "no_warm_up": Fault("a high rate without warm-up", RATE | {"clip_saturation", "plateau", "validation_rise", "rate_too_high"},
        (100, 30, 10), {"divergence", "skipped_steps", "non_finite", "rate_too_high"}, "rate|warm", is_curable=True, recipe=_rate),
    "rate_zero": Fault("the learning rate fell to nothing", {"dead_learning_rate"}, (1e-9, 1e-5, 1e-3),
        {"dead_learning_rate"}, onset=ONSET, course=lambda times: times),
    "clipping_lost": Fault("gradients are not clipped", RATE | {"clip_skipped"}, (3, 1, 0.3), {"clip_skipped"}, "clip",
        onset=ONSET, recipe=_clipped, patch=_no_clipping),
    "row_of_nan": Fault("rows give a loss that is not a number", {"non_finite", "skipped_steps"}, (1, 8, 60),
        {"non_finite", "skipped_steps"}, onset=ONSET, meddle=lambda every: poison(int(every), ONSET)),
    "fp16_overflow": Fault("gradients overflow", {"skipped_steps", "non_finite", "scale_collapse"}, (1, 4, 16),
        {"scale_collapse", "skipped_steps"}, onset=ONSET, recipe=lambda every, usual: {"train.precision": "fp16"},
        meddle=lambda every: overflow(int(every), ONSET)),
    "padding_scored": Fault("padding is scored", {"padding_scored", "first_pass_collapse"}, (20, 10, 5),
        {"padding_scored"}, "pad", traits=ALPACA, rows=_pad),
    "prompt_scored": Fault("the prompt is scored", {"prompt_scored"}, (1, 0.5, 0.2), {"prompt_scored"},
        traits=ALPACA, loss=_prompt_scored),
    "labels_not_shifted": Fault("labels are not shifted",
        {"labels_not_shifted", "labels_misplaced", "first_pass_collapse"}, (1, 0.5, 0.2), {"labels_not_shifted"},
        "shift|cop", traits=CAUSAL, loss=_unshifted),
    "template_swapped": Fault("the template of another model", {"template_marks_missing"}, (1, 0.6, 0.3),
        {"template_marks_missing"}, traits=ALPACA, rows=_marks),
    "end_missing": Fault("the end of answers is cut off", {"end_never_scored", "rows_without_targets"}, (64, 72, 80),
        {"end_never_scored"}, traits=ALPACA, is_curable=True,
        recipe=lambda length, usual: {"train.seq_len": int(length)}),
    "duplicates": Fault("rows repeat", REPEATED | {"epoch_step"}, (0.9, 0.5, 0.15), {"duplicates"},
        "duplic|repeat", is_curable=True, rows=_duplicates),
    "validation_leak": Fault("held-out rows are in training", {"contamination"}, (1, 0.5, 0.05), {"contamination"},
        is_curable=True, rows=_leak),
    "labels_shuffled": Fault("labels are not those of their rows", {"labels_shuffled", "plateau", "overfitting", "validation_rise"},
        (1, 0.5, 0.2), {"labels_shuffled"}, "label", traits=({"classification"}, {"seq2seq"}, {"alpaca"}), rows=_shuffle_labels),
    "adapter_frozen": Fault("tensors of the adapter are never stepped", STILL | {"dead_learning_rate", "plateau"},
        (1, 0.5, 0.1), STILL, traits=LORA, meddle=freeze),
    "loader_slow": Fault("batches come late", {"data_starvation", "slowdown", "stall"}, (0.2, 0.05, 0.02),
        {"data_starvation"}, "load|wait|data", onset=ONSET, meddle=lambda seconds: slow_loader(seconds, ONSET)),
    "memory_leak": Fault("memory grows with every step", {"memory_creep"}, (8, 2, 0.5), {"memory_creep"}, onset=ONSET,
        meddle=lambda mib: leak_memory(mib, ONSET)),
    "loss_mis_scaled": Fault("the loss is scaled", {"loss_mis_scaled", "loss_is_mean", "first_loss_off", "clip_saturation"},
        (0, 8, 0.5), {"loss_mis_scaled", "loss_is_mean"}, traits=CAUSAL, loss=lambda scale: own_loss(scale=scale)),
    # One of the six causes of the blind test, beside the twenty.
    "answer_in_prompt": Fault("answers stand in their prompts", {"answer_in_prompt", "first_pass_collapse"},
        (1, 0.5, 0.2), {"answer_in_prompt"}, traits=ALPACA, origin="blind", rows=_answers_in_prompts),
    # Analogues of TrainCheck's reproductions that have strengths; silent.py has all of them.
    "tensor_not_stepped": Fault("tensors are never stepped", STILL, (0.9, 0.5, 0.1), STILL, traits=SCRATCH,
        origin="traincheck", meddle=freeze),
    "schedule_fast": Fault("the schedule is stepped several times a step", {"rate_off_schedule"}, (4, 2, 1.5),
        {"rate_off_schedule"}, origin="traincheck", meddle=fast_schedule),
    "gradients_kept": Fault("gradients are not set to zero", RATE | {"gradients_kept", "clip_saturation"}, (200, 20, 4),
        {"gradients_kept"}, onset=ONSET, origin="traincheck", meddle=lambda steps: accumulate(int(steps), ONSET)),
    "gradients_dropped": Fault("gradients are set to zero before the update", STILL | {"gradients_dropped", "plateau", "dead_learning_rate", "only_frequencies"},
        (1, 2, 4), STILL | {"gradients_dropped"}, origin="traincheck", meddle=lambda every: drop_gradients(int(every))),
    "batches_repeated": Fault("the loader gives the same batches", REPEATED | {"samples_off_plan"}, (1, 4, 16),
        {"samples_off_plan", "duplicates"}, "repeat|duplic|batch", origin="traincheck",
        patch=lambda count: repeat_batches(int(count))),
    "evaluation_trains": Fault("an evaluation moves the weights", {"evaluation_trains", "divergence"},
        (0.3, 0.1, 0.01), {"evaluation_trains"}, origin="traincheck", patch=_evaluation_trains),
    "frozen_moves": Fault("frozen weights move", {"frozen_moved"}, (1e-2, 1e-3, 1e-4), {"frozen_moved"}, traits=LORA,
        origin="traincheck", meddle=move_frozen),
    "optimizer_forgets": Fault("the state of the optimizer is lost", {"optimizer_state_lost"}, (1, 5, 20),
        {"optimizer_state_lost"}, onset=ONSET, origin="traincheck", meddle=lambda every: drop_state(int(every), ONSET)),
    "gradient_cut": Fault("no gradient reaches the lower layers", STILL, (1, 0, 0), STILL, traits=({"causal", "scratch"},),
        origin="traincheck", patch=lambda layer: cut_gradient(int(layer))),
}  # fmt: skip
