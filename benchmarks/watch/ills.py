"""Ill recipes and rows that a change of the recipe can cure, beside those of the fault plan.

Each stands in a run from its start, as a user would write it: a slip of a power of ten, a habit of another data
set, a setting left over. The healthy twin has the same rows where these are not what is wrong.
"""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from watch.cases import Rows
from watch.faults import FAULTS, RATE, Fault

TwinRows = Callable[[Rows, Rows, float], Rows]


@dataclass(frozen=True)
class Ill:
    """A fault with the combinations that it is tried on, and its healthy twin.

    twin       changes of the usual recipe that the twin has
    rows       for training of the twin, by the rows, those held out and the strength; by default all rows
    is_low     whether the fault shows by a loss that is too low
    """

    fault: Fault
    on: tuple[str, ...]
    twin: Mapping[str, Any] = field(default_factory=dict)
    rows: TwinRows | None = None
    is_low: bool = False


def _first(train: Rows, held_out: Rows, strength: float) -> Rows:
    return train[: int(strength)]


def _without_leak(train: Rows, held_out: Rows, share: float) -> Rows:
    return train[: len(train) - 16 * max(round(share * len(held_out)), 1)]


def _without_copies(train: Rows, held_out: Rows, share: float) -> Rows:
    return train[: max(round(len(train) * (1 - share)), 1)]


def _few(train: Rows, held_out: Rows, draw: random.Random, count: float) -> tuple[Rows, Rows]:
    return train[: int(count)], held_out


def _few_held_out(train: Rows, held_out: Rows, draw: random.Random, count: float) -> tuple[Rows, Rows]:
    return train, held_out[:8]


def _of(name: str, *on: str, **more: Any) -> Ill:
    return Ill(FAULTS[name], on, **more)


ALPACA, COMMENTS, ADAPTED = "alpaca-scratch", "comments-scratch", "alpaca-lora"
PLAYS = "shakespeare-lora"
ILLS: dict[str, Ill] = {
    "no_warm_up": _of("no_warm_up", ALPACA, PLAYS),
    "end_missing": _of("end_missing", ALPACA, ADAPTED),
    "duplicates": _of("duplicates", ALPACA, ALPACA, rows=_without_copies),
    "validation_leak": _of("validation_leak", ALPACA, ADAPTED, rows=_without_leak, is_low=True),
    "rate_high": Ill(Fault("the learning rate is far too high", RATE | {"rate_too_high", "clip_saturation", "plateau"},
        (100, 30, 10), recipe=lambda times, usual: {"optim.learning_rate": times * usual}), (ALPACA, ADAPTED)),
    "rate_low": Ill(Fault("the learning rate is far too low", {"rate_too_low", "dead_learning_rate", "plateau"},
        (1e-3, 1e-2, 3e-2), recipe=lambda times, usual: {"optim.learning_rate": times * usual}), (PLAYS, ALPACA)),
    "decay_high": Ill(Fault("weight decay far too high", {"decay_too_high", "plateau", "only_frequencies"}, (100, 30, 10),
        recipe=lambda decay, usual: {"optim.weight_decay": float(decay)}), (ALPACA, PLAYS)),
    "dropout_high": Ill(Fault("dropout far too high", {"dropout_too_high", "contamination", "only_frequencies"},
        (0.95, 0.8, 0.6), recipe=lambda share, usual: {"adapter.dropout" if share == 0.8 else "model.dropout": share}), (ALPACA, ADAPTED)),
    "smoothing_high": Ill(Fault("label smoothing far too high", {"smoothing_too_high", "contamination", "only_frequencies"},
        (0.95, 0.8, 0.6), recipe=lambda share, usual: {"loss.label_smoothing": share}), (COMMENTS, COMMENTS)),
    "many_passes": Ill(Fault("too many passes over few rows", {"overfitting"}, (48, 96, 192), rows=_few),
        (ADAPTED, PLAYS), {"train.steps": 40}, rows=_first),
    "patience_short": Ill(Fault("patience ends the run on the noise of few validation rows", {"ended_on_noise"}, (1, 2, 3),
        recipe=lambda count, usual: {"evaluate.patience": int(count), "evaluate.every_steps": 3},
        rows=_few_held_out), (ALPACA, PLAYS)),
    "texts_cut": Ill(Fault("texts are cut short", {"samples_cut"}, (3, 6, 10),
        recipe=lambda length, usual: {"train.seq_len": int(length)}), (COMMENTS, COMMENTS)),
    "adapter_weak": Ill(Fault("an adapter of no strength", {"adapter_too_weak", "dead_learning_rate", "plateau"},
        (1e-3, 1e-2, 1e-1), recipe=lambda share, usual: {"adapter.alpha": 16 * share}), (ADAPTED, PLAYS)),
}  # fmt: skip
