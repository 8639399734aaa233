"""All tests before the first step, each on a few short samples; none of them changes a run."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from etude.audit.leaks import Leak, find_chance, find_future, find_neighbours
from etude.audit.losses import (
    FirstLoss,
    find_unreached,
    find_wrong_sum,
    find_wrong_targets,
    sum_by_hand,
    uncopied_loss,
)
from etude.audit.passes import Tried, undisturbed
from etude.audit.readings import find_read, find_wrong_readings
from etude.audit.rows import find_in_rows
from etude.audit.samples import choose_short, lay_out
from etude.audit.sums import find_no_sum, find_wrong_scale
from etude.audit.targets import Targets, read_targets
from etude.audit.updates import find_wrong_sizes
from etude.data.samples.frequencies import target_entropy
from etude.data.samples.sample import Sample
from etude.engine.batch import DeviceBatch
from etude.engine.loop import TrainState
from etude.engine.out_of_memory import is_out_of_memory, release
from etude.objectives.task import Task
from etude.own import Own, logits
from etude.plan import Plan
from etude.records.events import Finding
from etude.text import shorten

_SAMPLES = 8
_LOOKED_AT = 256  # samples, without the model
_MOST_LOGITS = 2**26
_COPIED = 0.9  # of the scored places
_MOST_CHANCE = 0.02  # of the largest answer; kernels that add in any order stay far below


@dataclass
class Audit:
    """The findings of the tests, the tests that were made, and those that could not be, with the reason."""

    findings: list[Finding] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """A row for each finding, as people read it."""
        return [(each.kind, f"{each.what}: {each.evidence}; {each.advice}") for each in self.findings]

    def __str__(self) -> str:
        faults = ", ".join(dict.fromkeys(each.kind for each in self.findings)) or "no fault"
        left = "".join(f"; not tested: {name} ({why})" for name, why in self.left_out.items())
        return f"{len(self.made)} tests: {faults}{left}"


def audit(plan: Plan, state: TrainState, own: Own = Own(), *, is_fresh: bool | None) -> Audit:  # noqa: B008
    """Test data, model and loss of a run that has made no step yet.

    is_fresh: whether the weights were drawn by chance; None if that is not known. Weights, gradients, random
    numbers and what is compiled stay as they are. A test that fails is named and costs the run nothing.
    """
    found = Audit()
    device = next((each.device for each in state.model.parameters()), plan.device)
    with undisturbed(state.model):
        parts = [
            _Part(task, Tried(state.model, task.kind, state.precision, device), own, is_fresh, found)
            for task in plan.tasks
        ]
        for part in parts:
            part.test()
        passes = [(part.tried, part.batch(2)) for part in parts if part.samples]
        has_adapter = plan.recipe.adapter is not None
        if passes:
            _test(found, "gradients", lambda: find_unreached(passes, state.optimizer, has_adapter))
        if not state.step and own.model is None:  # the scale of others' weights may mean anything
            fresh = bool(is_fresh)
            _test(found, "sizes of updates", lambda: find_wrong_sizes(plan, state, is_fresh=fresh))
    found.findings = [each for each in found.findings if each.kind not in plan.recipe.watch.ignore]
    if plan.pretrained:
        longest = plan.pretrained.config.longest
        found.findings = [_readable(each, longest, plan.recipe.train.seq_len) for each in found.findings]
    return found


@dataclass
class _Part:
    """The tests of one task."""

    task: Task
    tried: Tried
    own: Own
    is_fresh: bool | None
    found: Audit
    samples: list[Sample] = field(default_factory=list)

    def test(self) -> None:
        self._test("rows", lambda: find_in_rows(self.task))
        self.samples = choose_short(self.task.corpus.train, _SAMPLES)
        if not self.samples:
            return
        targets: list[Targets] = []
        if self.own.loss is not None and self._reads_on:
            self._test("targets of the loss", lambda: self._find_targets(targets))
        if self._reads_on and (not targets or targets[0].are_of_reading):
            self._test("causality", self._find_future)
        if self.own.loss is not None and self._reads_on and not self.task.recipe.kind.joins_texts and targets:
            self._test("what a target reads", lambda: self._find_read(targets[0]))
        self._test("neighbours in a batch", self._find_neighbours)
        self._test("the same pass again", self._find_chance)
        self._test("sum of the loss", self._find_sum)
        if not any(each.kind in _EXPLAIN for each in self.found.findings):
            self._test("first loss", self._find_first_loss)

    def batch(self, count: int) -> DeviceBatch:
        return self._lay(self.samples[:count])

    @property
    def _reads_on(self) -> bool:
        """True if each target is to be foretold from what stands before it."""
        return self.task.recipe.kind.writes_text

    def _lay(self, samples: Sequence[Sample]) -> DeviceBatch:
        attend = self.task.recipe.data.attend_across_documents
        return lay_out(samples, self.task.name, self.tried.device, attend=attend)

    def _test(self, name: str, find: Callable[[], Iterator[Finding]]) -> None:
        _test(self.found, f"{self.task.name} {name}".strip(), find)

    def _find_targets(self, kept: list[Targets]) -> Iterator[Finding]:
        vocabulary = int(self.task.corpus.summary["vocab_size"])
        targets = read_targets(self.tried, self.batch(_SAMPLES), vocabulary)
        if targets is None:
            raise _NotTested("the model gives no logits of tokens")
        kept.append(targets)
        yield from find_wrong_targets(targets)
        if self.samples[0].weights is None:
            yield from find_wrong_scale(targets)

    def _find_future(self) -> Iterator[Finding]:
        longest = max(self.samples, key=lambda each: len(each.labels))
        leak = find_future(self.tried, self._lay([longest]))
        if leak is None:
            raise _NotTested("no answers at places of the batch, or too few tokens")
        if not leak.reach and not leak.count:
            raise _NotTested("answers depend on no other token yet, as with output projections of zero")
        if leak.is_fault:
            yield _leak_finding(
                leak, "future_visible", what="the model sees tokens that it is to foretell",
                done="later tokens of a row were changed", held="before them",
                advice="mend the causal mask of the module, or use another attention implementation or "
                "version of transformers; what is trained so cannot write text",
                cause="an attention mask that lets a place see later ones",
            )  # fmt: skip

    def _find_read(self, targets: Targets) -> Iterator[Finding]:
        if not targets.are_of_reading:
            raise _NotTested("the loss asks for something else than tokens of the text")
        if any(each.kind in {*_EXPLAIN, "future_visible"} for each in self.found.findings):
            return  # which this would say again
        corpus, longest = self.task.corpus, max(self.samples, key=lambda each: len(each.labels))
        taken = {*longest.tokens.tolist(), *longest.labels.tolist(), *corpus.tokenizer.special_ids}
        taken |= {*corpus.end_ids, corpus.tokenizer.eos_id}
        # Of the later half, as what fills up rows is often among the first.
        vocabulary = int(corpus.summary["vocab_size"])
        free = [each for each in range(vocabulary // 2, vocabulary) if each not in taken]
        found = find_read(self.tried, longest, free[:: max(len(free) // 5, 1)][:4], self._lay)
        if found is None:
            raise _NotTested("no embedding of tokens that the loss of a target reaches, or too few tokens")
        yield from find_wrong_readings(found, is_copied=targets.share(targets.read) > _COPIED)

    def _find_neighbours(self) -> Iterator[Finding]:
        some = sorted(self.samples, key=lambda each: len(each.tokens))
        leak = find_neighbours(self.tried, self._lay([some[-1], some[0]]))
        if leak is None:
            raise _NotTested("one sample alone, or no answers at places of the batch")
        if leak.is_fault:
            yield _leak_finding(
                leak, "neighbour_visible", what="a sample sees its neighbours in the batch",
                done="one sample of a batch was changed", held="of others",
                advice="keep the sequences of batch.lengths apart in attention, and count batch.positions",
                cause="attention across the samples that lie end to end in a row",
            )  # fmt: skip

    def _find_chance(self) -> Iterator[Finding]:
        moved = find_chance(self.tried, self.batch(2))
        if moved > _MOST_CHANCE:
            yield Finding(
                0, "the model answers by chance in evaluation",
                f"the same samples read twice in evaluation mode have answers that differ by {moved:.2g} of "
                "the largest",
                "let dropout follow the mode of the module: functional.dropout(x, p, self.training)",
                window=[0, 0], causes=["dropout that stays on in evaluation"], kind="evaluation_random",
                confidence=0.9, decided_by="the same pass again",
            )  # fmt: skip

    def _find_sum(self) -> Iterator[Finding]:
        if self.own.loss is not None or not self._reads_on or self.task.recipe.kind.joins_texts:
            # Padding up to the longest, and labels of other rows, change with what lies in a batch.
            if not any(each.kind in ("padding_scored", "labels_misplaced") for each in self.found.findings):
                yield from find_no_sum(self.tried, self.samples, self._lay)
            return
        batch = self.batch(2)
        with torch.no_grad(), self.tried.precision.autocast():
            scores = logits(self.tried.model, batch)
            if scores.numel() > _MOST_LOGITS:
                raise _NotTested("more logits than a test should make")
            loss, targets = self.tried.objective.loss_sum(self.tried.model, batch)
            by_hand, counted = sum_by_hand(scores, batch)
        yield from find_wrong_sum(by_hand, float(loss), float(targets), counted)

    def _find_first_loss(self) -> Iterator[Finding]:
        labels, corpus = self.task.corpus.labels, self.task.corpus
        classes = int(corpus.summary["vocab_size"])
        if labels is not None:
            classes = 2 if labels.multi else len(labels.names)
        plain = replace(self.tried, objective=self.task.kind.plain())
        with torch.no_grad():
            done = plain.run(batch := self.batch(_SAMPLES))
            is_small = sum(call.answer.numel() for call in done.calls) <= _MOST_LOGITS
            uncopied = uncopied_loss(done, batch) if self._reads_on and is_small else math.nan
        targets = max(float(done.targets), 1e-9)
        first = FirstLoss(
            float(done.loss) / targets, round(targets), max(classes, 2), self.is_fresh,
            is_tokens=labels is None, entropy=target_entropy(corpus.train) or 0.0,
            outputs=0 if math.isnan(uncopied) else done.answers.shape[-1], uncopied=uncopied,
        )  # fmt: skip
        yield from first.find()


def _readable(finding: Finding, longest: int, now: int) -> Finding:
    """The finding with samples no longer than the model reads; without that change if they are so now."""
    changes = dict(finding.changes)
    if "train.seq_len" in changes:
        length = min(changes.pop("train.seq_len"), longest)
        changes |= {"train.seq_len": length} if length > now else {}
    return replace(finding, changes=changes)


class _NotTested(Exception):
    """A test that these data or this model do not allow."""


def _test(found: Audit, name: str, find: Callable[[], Iterator[Finding]]) -> None:
    """Make one test. An own module may raise what it likes, and memory may be short: the run goes on."""
    try:
        found.findings += find()
        found.made.append(name)
    except _NotTested as reason:
        found.left_out[name] = str(reason)
    except Exception as error:
        found.left_out[name] = shorten(f"{type(error).__name__}: {error}", 100)
        if is_out_of_memory(error):
            release(error)


def _leak_finding(leak: Leak, kind: str, what: str, done: str, held: str, advice: str, cause: str) -> Finding:
    return Finding(
        0, what,
        f"{done}, and {leak.count:,} of {leak.of:,} answers {held} moved, by up to {leak.moved:.2g} of the "
        "largest answer",
        advice, severity="error", window=[0, 0], causes=[cause], kind=kind, confidence=1.0,
        decided_by="the same pass with other tokens",
    )  # fmt: skip


# Findings that explain a first loss which is off.
_EXPLAIN = {
    "labels_not_shifted",
    "labels_shifted_twice",
    "labels_misplaced",
    "loss_mis_scaled",
    "padding_scored",
    "prompt_scored",
}
