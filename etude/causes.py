"""The cause of a loss that fell too far: a few passes of the model that tell one explanation from another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.audit import audit
from etude.audit.passes import Tried, undisturbed
from etude.audit.samples import choose_samples, cut, lay_out
from etude.data.loader import sample_ids, steps_per_epoch
from etude.data.repeats import Repeats
from etude.data.samples.sample import Sample
from etude.engine.loop import TrainState
from etude.objectives.task import Task
from etude.own import Own
from etude.plan import Plan
from etude.recipe.course import Course
from etude.records.events import Finding
from etude.text import plural, verb
from etude.watch.detectors import collapse

NO_FAULT = "easy_data"
_ROWS, _LONGEST = 12, 192  # that are scored on either side
_LEAST_ROWS = 4  # on either side, for a comparison
_STEPS_BACK, _STEPS_KNOWN = 16, 256
_SOME_REPEATS = 0.1
_LOW = 0.25  # of the loss of chance
_LEAST_GAP, _GROWTH, _ERRORS = 0.1, 1.5, 3.0
# Findings of the tests before the first step that explain a low loss, the surest first.
_SAID = {
    "labels_not_shifted": collapse.COPIED,
    "future_visible": collapse.FUTURE,
    "padding_scored": collapse.PADDING,
    "prompt_scored": collapse.PADDING,
    "loss_mis_scaled": collapse.SCALE,
    "answer_in_prompt": collapse.ANSWER,
}


@dataclass(frozen=True)
class Cause:
    """An explanation, with the test that decided it.

    name      stable, as the findings of a run have their kinds; NO_FAULT where nothing is wrong
    said      the same in words
    evidence  figures of the test
    """

    name: str
    said: str
    evidence: str
    advice: str
    decided_by: str
    confidence: float
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """Losses a target of rows, (n,) each: trained on lately, and of rows that were not.

    copying, following  mean losses by hand of the token read and of the next one, on rows not trained on
    """

    trained: np.ndarray
    unseen: np.ndarray
    copying: float = math.nan
    following: float = math.nan

    @property
    def has_gap(self) -> bool:
        """True if rows that were not trained on are worse, beyond the noise of their choice."""
        low, high = self.trained.mean(), self.unseen.mean()
        error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in (self.trained, self.unseen)))
        return bool(high - low > max(_LEAST_GAP, _ERRORS * error) and high > _GROWTH * low)


@dataclass(frozen=True)
class Diagnosis:
    """The causes that tests found, the likeliest first, and the tests that could not be made."""

    causes: list[Cause]
    left_out: dict[str, str]
    losses: dict[str, Losses]


def find_causes(plan: Plan, state: TrainState, own: Own = Own()) -> Diagnosis:  # noqa: B008 - frozen
    """Look for the causes of a low training loss after `state.step` steps.

    Weights, gradients, random numbers and what is compiled stay as they are. The rows that are scored were
    trained on in the last steps, and are held out, or come later in the first epoch.
    """
    tests = audit(plan, state, own, is_fresh=None)
    faults = [each for each in tests.findings if each.severity != "info"]
    causes = [_of_finding(each) for each in faults if each.kind in _SAID]
    losses: dict[str, Losses] = {}
    for task in plan.tasks:
        with undisturbed(state.model):
            losses[task.name] = _measure(plan, state, task)
        causes += _judge(plan, state, task, losses[task.name], task.corpus.repeats, has_fault=bool(causes))
    order = [*_SAID, "repeated_rows", "memorised", NO_FAULT]
    causes.sort(key=lambda cause: (-cause.confidence, order.index(cause.name)))
    unique = {cause.name: cause for cause in reversed(causes)}
    return Diagnosis([each for each in causes if unique[each.name] is each], tests.left_out, losses)


def explain(finding: Finding, found: Diagnosis) -> Finding:
    """A finding of a low loss with the cause that tests found; as it was if they found none."""
    if not found.causes:
        return finding
    first, others = found.causes[0], found.causes[1:]
    is_fault = first.name != NO_FAULT
    return replace(
        finding,
        what=finding.what if is_fault else "the loss is low in the first pass, as the data is easy",
        evidence=f"{finding.evidence}; {first.evidence}",
        advice=first.advice,
        severity="error" if first.name in _SAID else finding.severity if is_fault else "info",
        causes=[each.said for each in (first, *others)],
        changes=first.changes,
        decided_by=first.decided_by,
        confidence=first.confidence,
        not_tested=list(found.left_out),
    )


def name_repeats(finding: Finding, plan: Plan) -> Finding:
    """A finding of a validation loss that rises, with copies among the training rows as its first cause."""
    repeats = max((task.corpus.repeats for task in plan.tasks), key=lambda each: each.share)
    if repeats.share <= _SOME_REPEATS:
        return finding
    first = _repeated(repeats, finding.evidence)
    return replace(
        finding, evidence=first.evidence, advice=f"{first.advice}; else {finding.advice}",
        causes=[first.said, *finding.causes], changes=first.changes, decided_by="equal rows of training",
    )  # fmt: skip


def _of_finding(finding: Finding) -> Cause:
    return Cause(
        finding.kind, _SAID[finding.kind], finding.evidence, finding.advice, finding.decided_by,
        min(finding.confidence or 0.0, 0.95), changes=finding.changes,
    )  # fmt: skip


def _judge(
    plan: Plan, state: TrainState, task: Task, losses: Losses, repeats: Repeats, *, has_fault: bool
) -> Iterator[Cause]:
    """Causes that the losses of rows tell apart."""
    if min(len(losses.trained), len(losses.unseen)) < _LEAST_ROWS:
        if repeats.share > 0.5 and len(losses.trained):
            left = plural(len(losses.unseen), "row")
            yield _repeated(repeats, f"{left} among those to come that is no copy of one trained on")
        return
    trained, unseen = float(losses.trained.mean()), float(losses.unseen.mean())
    said = f"{trained:.3g} on {len(losses.trained)} rows of the last steps, {unseen:.3g} on "
    said += f"{len(losses.unseen)} rows not trained on"
    if losses.copying < min(losses.following / 2, losses.following - 1, 1) and not has_fault:
        yield Cause(
            "labels_not_shifted", collapse.COPIED,
            f"loss of the token itself {losses.copying:.3g}, of the next one {losses.following:.3g}",
            "compare the answer at each place with batch.labels, the tokens after those of batch.tokens",
            "the losses of copied and of next tokens", 0.9,
        )  # fmt: skip
    elif losses.has_gap:
        if repeats.share > _SOME_REPEATS:
            yield _repeated(repeats, f"loss {said}")
        elif state.step > plan.steps_per_epoch:
            yield Cause(
                "memorised", "rows learnt by heart, as they came again",
                f"loss {said}, after {state.step / plan.steps_per_epoch:.1f} epochs",
                "stop at the best evaluation, train fewer epochs, or give more rows",
                "the loss of rows not trained on", 0.9,
            )  # fmt: skip
    elif not has_fault and trained < _LOW * _chance(task):
        yield Cause(
            NO_FAULT, collapse.EASY, f"loss {said}: rows that were not trained on are as easy",
            "nothing is to be mended; a smaller model or fewer steps may do",
            "the loss of rows not trained on", 0.8,
        )  # fmt: skip
    elif repeats.share > _SOME_REPEATS:
        yield replace(_repeated(repeats, f"loss {said}: no gap so far"), confidence=0.5)


def _repeated(repeats: Repeats, said: str) -> Cause:
    return Cause(
        "repeated_rows", collapse.REPEATED,
        f"{repeats.copies:,} of {plural(repeats.rows, 'row')} "
        f"{verb(repeats.copies, 'are')} copies of others; {said}",
        'set data.deduplicate = "exact"', "equal rows, and the loss of rows not trained on", 0.9,
        changes={"data.deduplicate": "exact"},
    )  # fmt: skip


def _chance(task: Task) -> float:
    labels = task.corpus.labels
    classes = int(task.corpus.summary["vocab_size"]) if labels is None else len(labels.names)
    return math.log(2 if labels is not None and labels.multi else max(classes, 2))


@torch.no_grad()
def _measure(plan: Plan, state: TrainState, task: Task) -> Losses:
    """Losses of rows that were trained on lately and of others, each row alone."""
    device = next((each.device for each in state.model.parameters()), plan.device)
    tried = Tried(state.model, task.kind.plain(), state.precision, device)
    recent = list(_of_steps(plan, state.course, task, _steps_back(state)))[:_ROWS]
    lately = range(max(state.step - _STEPS_KNOWN, 0), state.step)
    seen = {each.tokens.tobytes() for each in _of_steps(plan, state.course, task, lately)}
    held = task.corpus.validation
    others = (
        choose_samples(held, _ROWS)
        if held
        else _of_steps(plan, state.course, task, _steps_ahead(plan, state))
    )
    unseen = [each for each in others if each.tokens.tobytes() not in seen][:_ROWS]
    attend = task.recipe.data.attend_across_documents

    def score(samples: Sequence[Sample]) -> tuple[np.ndarray, list[tuple[float, float, int]]]:
        losses, by_hand = [], []
        for sample in samples:
            batch = lay_out([cut(sample, _LONGEST)], task.name, device, attend=attend)
            done = tried.run(batch)
            losses.append(float(done.loss) / max(float(done.targets), 1e-9))
            if done.places is not None and task.recipe.kind.writes_text and batch.target_lengths is None:
                by_hand.append(
                    _read_and_next(done.answers, done.places, batch.tokens.flatten(), _chance(task))
                )
        return np.array(losses), by_hand

    low, _ = score(recent)
    high, by_hand = score(unseen)
    counted = [each for each in by_hand if each[2]]
    total = sum(each[2] for each in counted)
    copying, following = (
        (sum(each[side] for each in counted) / total for side in (0, 1)) if total else (math.nan, math.nan)
    )
    return Losses(low, high, copying, following)


def _read_and_next(
    answers: Tensor, places: Tensor, tokens: Tensor, chance: float
) -> tuple[float, float, int]:
    """Summed losses of the tokens that are read and of those after them, by logits, and their number."""
    if answers.shape[-1] < round(math.exp(chance)):  # hidden states, no logits
        return 0.0, 0.0, 0
    real = (places >= 0) & (places + 1 < len(tokens))
    at, scores = places[real], answers[real].float().log_softmax(dim=1)
    read, following = (-scores.gather(1, tokens[at + by][:, None]).sum() for by in (0, 1))
    return float(read), float(following), int(real.sum())


def _steps_back(state: TrainState) -> range:
    return range(state.step - 1, max(state.step - 1 - _STEPS_BACK, -1), -1)


def _steps_ahead(plan: Plan, state: TrainState) -> range:
    """The last steps of the first epoch that are still to come."""
    return range(plan.steps_per_epoch - 1, max(state.step, plan.steps_per_epoch - 1 - _STEPS_BACK) - 1, -1)


def _of_steps(plan: Plan, course: Course, task: Task, steps: range) -> Iterator[Sample]:
    """The samples of a task in some steps of the course."""
    count = len(plan.train)
    for step in steps:
        size, at = course.at(step).global_batch_size, course.data_step(step, count)
        ids = sample_ids(at, n=count, global_batch_size=size, seed=plan.recipe.seed)
        for index in ids.tolist():
            sample = plan.train.sample(int(index), at // steps_per_epoch(count, size))
            if sample.task == task.name:
                yield sample
