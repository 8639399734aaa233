"""Settings that cannot train: sizes of updates by arithmetic, against the weights that they move."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etude.engine.loop import TrainState
from etude.plan import Plan
from etude.recipe.schedule import learning_rate_ratio
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.text import plural

_LEAST_STEPS = 50  # shorter runs are trials
_LEAST_PATH = 0.3  # of a drawn weight over the run, in its spread
_LEAST_REACH = 0.005  # of what an adapter adds to a frozen weight over the run
_GOOD_RATE = 0.25  # in spreads of the weights
_RATE_TIMES_WIDTH = 0.45  # in all sizes of GPT-3
_GPT3 = "Brown et al. 2020 (GPT-3), table 2.1"
_LEAST_MEMORY = 100  # steps after which decay alone has shrunk a weight by e
_MOST_DROPPED, _USUAL_DROPPED = 0.5, 0.1
_NEW_PASSES = 4  # in which rows are worth as much as new ones
_STRENGTH = 2.0  # of an adapter, alpha / rank
_PLACES = 1_000


@dataclass(frozen=True)
class Updates:
    """The sizes of what a recipe does to the weights.

    spread  root mean square of the trained matrices (the median of them), which is not 0
    width   columns of a matrix, the median of all
    frozen  the same of the frozen ones; 0 without
    steps   of the run
    shares  sum over the steps of the share of the peak learning rate
    """

    recipe: Recipe
    spread: float
    width: float
    frozen: float
    steps: int
    shares: float
    is_fresh: bool

    @classmethod
    def of(cls, plan: Plan, state: TrainState, *, is_fresh: bool) -> "Updates":
        sizes: dict[bool, list[float]] = {True: [], False: []}
        widths = []
        for name, each in state.model.named_parameters():
            if each.dim() > 1 and each.is_floating_point():
                size = float(each.detach().float().pow(2).mean().sqrt())
                sizes[state.optimizer.has(name, each)] += [size] if 0 < size < math.inf else []
                widths.append(each.shape[1])
        width = statistics.median(widths or [1])
        spread, frozen = (statistics.median(sizes[each] or [0.0]) for each in (True, False))
        places = min(plan.steps, _PLACES)
        ratios = (
            learning_rate_ratio(place * plan.steps // places, plan.recipe.schedule, steps=plan.steps)
            for place in range(places)
        )
        return cls(
            recipe=plan.recipe, spread=spread, frozen=frozen, width=width, steps=plan.steps,
            shares=sum(ratios) * plan.steps / places, is_fresh=is_fresh,
        )  # fmt: skip

    @property
    def path(self) -> float:
        """The most that Adam moves a weight over the run: about the learning rate at each step."""
        return self.recipe.optim.learning_rate * self.shares

    @property
    def strength(self) -> float:
        """Factor of the product of an adapter's matrices; 0 without an adapter."""
        adapter = self.recipe.adapter
        if adapter is None:
            return 0.0
        return adapter.alpha / (math.sqrt(adapter.rank) if adapter.rank_stabilized else adapter.rank)

    @property
    def reach(self) -> float:
        """The most that an adapter adds to a frozen weight over the run, as a share of it."""
        adapter = self.recipe.adapter
        if adapter is None or not self.frozen:
            return math.inf
        return self.strength * self.path * self.spread * math.sqrt(adapter.rank) / self.frozen

    @property
    def good_rate(self) -> float:
        """A learning rate for the width of the model: at most a quarter of the spread of its weights."""
        return float(f"{min(_GOOD_RATE * self.spread, _RATE_TIMES_WIDTH / self.width):.2g}")


def find_wrong_sizes(plan: Plan, state: TrainState, *, is_fresh: bool) -> Iterator[Finding]:
    """Rates, decay, dropout and smoothing that no model of this size and length learns with."""
    updates = Updates.of(plan, state, is_fresh=is_fresh)
    if updates.spread and updates.recipe.optim.kind != "muon":  # whose updates have another size
        yield from _find_rate(updates)
    yield from _find_decay(updates)
    yield from _find_noise(updates.recipe, is_short=plan.steps <= _NEW_PASSES * plan.steps_per_epoch)


def _find_rate(updates: Updates) -> Iterator[Finding]:
    rate, spread, recipe = updates.recipe.optim.learning_rate, updates.spread, updates.recipe
    if rate > spread:
        warm_up = (
            {} if recipe.schedule.warmup_steps else {"schedule.warmup_steps": max(updates.steps // 20, 1)}
        )
        yield _finding(
            "rate_too_high", "each update is larger than the weights",
            f"Adam moves a weight by about optim.learning_rate, {rate:g}, at a step, and the weights have a "
            f"spread of {spread:.2g}: what one step learns the next undoes",
            f"set optim.learning_rate to {updates.good_rate:g}, with a warm-up",
            ["a learning rate that is too high"],
            changes={"optim.learning_rate": updates.good_rate, **warm_up}, source=_GPT3,
        )  # fmt: skip
    if updates.steps < _LEAST_STEPS:
        return
    said = f"Adam moves a weight by at most {updates.path:.2g} over {plural(updates.steps, 'step')}"
    if updates.is_fresh and updates.path < _LEAST_PATH * spread:
        drawn = f"{said} at optim.learning_rate {rate:g}, and they are drawn with a spread of {spread:.2g}"
        yield _too_low(updates, drawn)
    elif updates.reach < _LEAST_REACH and recipe.adapter:
        adds = f"{said}, so that the adapter adds at most {updates.reach:.2%} to a frozen weight"
        if updates.strength < _STRENGTH / 10:
            alpha = _STRENGTH * (
                math.sqrt(recipe.adapter.rank) if recipe.adapter.rank_stabilized else recipe.adapter.rank
            )
            yield _finding(
                "adapter_too_weak", "the adapter is too weak to change the model",
                f"{adds}: adapter.alpha {recipe.adapter.alpha:g} multiplies it by {updates.strength:.2g}",
                f"set adapter.alpha to {alpha:g}", ["an adapter.alpha that is too low"],
                changes={"adapter.alpha": float(alpha)},
            )  # fmt: skip
        else:
            yield _too_low(updates, f"{adds} at optim.learning_rate {rate:g}")


def _too_low(updates: Updates, said: str) -> Finding:
    return _finding(
        "rate_too_low", "the weights cannot move far enough to learn", said,
        f"set optim.learning_rate to {updates.good_rate:g}", ["a learning rate that is too low"],
        changes={"optim.learning_rate": updates.good_rate}, source=_GPT3,
    )  # fmt: skip


def _find_decay(updates: Updates) -> Iterator[Finding]:
    optim = updates.recipe.optim
    decay = 0.1 if optim.weight_decay is None else optim.weight_decay
    if optim.kind == "adam" or not decay or updates.steps < _LEAST_STEPS:  # where it is a penalty in the loss
        return
    rate = min(optim.learning_rate, updates.good_rate) if updates.spread else optim.learning_rate
    memory = 1 / (rate * decay)
    if memory < min(_LEAST_MEMORY, updates.steps):
        yield _finding(
            "decay_too_high", "weight decay undoes what is learnt",
            f"optim.weight_decay {decay:g} at a learning rate of {rate:g} shrinks the weights to a third in "
            f"{memory:.0f} of {plural(updates.steps, 'step')}",
            "set optim.weight_decay to 0.1", ["weight decay that is too high"],
            changes={"optim.weight_decay": 0.1},
            source="time scale 1 / (rate x decay): arXiv:2405.13698",
        )  # fmt: skip


def _find_noise(recipe: Recipe, *, is_short: bool) -> Iterator[Finding]:
    """Dropout and smoothing; in few passes over the rows there is nothing that dropout is needed for."""
    usual = 0.0 if is_short else _USUAL_DROPPED
    dropped = {"model.dropout": recipe.model.dropout or 0.0}
    if recipe.adapter:
        dropped["adapter.dropout"] = recipe.adapter.dropout
    for key, share in dropped.items():
        if share > _MOST_DROPPED:
            yield _finding(
                "dropout_too_high", "most of the activations are dropped",
                f"{key} is {share:g}: {1 - share:.0%} of the activations are left in training",
                f"set {key} to {usual:g}{', as there are few passes over the rows' if is_short else ''}",
                ["a share that was meant to be kept"],
                changes={key: usual},
                source="Srivastava et al. 2014: at most 0.5; arXiv:2305.16264: none in four passes",
            )  # fmt: skip
    smoothing = recipe.loss.label_smoothing
    if smoothing > _MOST_DROPPED:
        yield _finding(
            "smoothing_too_high", "most of the target is not the truth",
            f"loss.label_smoothing {smoothing:g} leaves {1 - smoothing:.0%} of the target to the truth",
            f"set loss.label_smoothing to {_USUAL_DROPPED:g}", ["label smoothing that is too high"],
            changes={"loss.label_smoothing": _USUAL_DROPPED}, source="0.1: Szegedy et al. 2016",
        )  # fmt: skip


def _finding(
    kind: str,
    what: str,
    evidence: str,
    advice: str,
    causes: list[str],
    changes: dict[str, Any],
    source: str = "",
) -> Finding:
    return Finding(
        0, what, evidence, advice, window=[0, 0], causes=causes, changes=changes, kind=kind, confidence=0.9,
        decided_by="arithmetic on the recipe and the first weights", source=source,
    )  # fmt: skip
