"""The watch of a run that goes on: it reads the records, says what they show, and acts by the policy."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from etude.control.desk import Decision
from etude.engine.checkpoint import read_progress
from etude.errors import RecipeError
from etude.recipe.course import PATIENCE, REMEDY_KEYS, SKIP, STEPS, Change, Course
from etude.recipe.schema import Watch
from etude.records.changes import last_values
from etude.records.events import Attempt, Control, DataUsed, Event, Finding, Step
from etude.records.folder import checkpoint_name, list_checkpoints, step_of
from etude.records.store import Run
from etude.watch.criteria import Criteria
from etude.watch.journal import facts_of, point_of, points_of
from etude.watch.watcher import Watcher

REQUEST = "watch"  # in records of what it decided
_LOWER_RATE = 0.3
NEVER_MOVED = "never_moved"  # the finding that a trainable tensor stayed as it was


class RunWatch:
    """Watches the records of a run on the rank that writes them.

    explain  looks for the cause of a finding in the model and the data, and returns the finding with it
    settle   waits for the checkpoint that is being written, and for the removal of those it makes too many
    """

    def __init__(
        self,
        run: Run,
        policy: Watch,
        explain: Callable[[Finding], Finding] = lambda finding: finding,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._policy, self._explain, self._settle = run, policy, explain, settle
        self._watcher: Watcher | None = None
        self._steps_per_epoch = 1
        self._worst: Finding | None = None  # an error that nothing was done about
        self._criteria: Criteria | None = None
        self._recoveries = 0
        self._losses: set[str] = set()  # the kinds of losses that steps had
        self._stood_still: Finding | None = None
        self._has_first_weights = False
        self._good_rate: float | None = None  # that a test before the first step knows

    def begin(self, *, has_first_weights: bool) -> list[Finding]:
        """Read the journal so far; returns findings of steps that count and that a kill kept from it."""
        ledger = self._run.ledger()
        events = [entry.event for entry in ledger.entries]
        attempt = next(event for event in reversed(events) if isinstance(event, Attempt))
        recipe, changed = self._run.recipe, last_values(events)
        attempt = replace(attempt, steps=changed.get(STEPS, attempt.steps))
        self._has_first_weights = has_first_weights
        self._criteria = Criteria(recipe.criteria, attempt.steps, recipe.records.log_every_steps)
        for event in events:
            self._note(event)
            self._criteria.observe(event)
            self._note_undecided(event)
        if self._policy.policy == "off":
            return []
        data = next((event for event in events if isinstance(event, DataUsed)), None)
        facts = facts_of(recipe, attempt, data, has_first_weights=has_first_weights)
        facts = replace(facts, patience=changed.get(PATIENCE, facts.patience))
        self._steps_per_epoch = attempt.steps_per_epoch
        self._watcher = Watcher.of(facts, ignore=self._policy.ignore)
        known = {(each.kind, each.step) for each in events if isinstance(each, Finding)}
        found = self._watcher.add(*points_of(events))
        self._recoveries = sum(
            isinstance(event, Control) and event.request == REQUEST for event, _, _ in ledger.all
        )
        lost = [finding for finding in found if (finding.kind, finding.step) not in known]
        for finding in lost:
            self._note_undecided(finding)
        return lost

    def rewind(self, step: int) -> None:
        """Forget what came after a step, from which the run goes on."""
        self._worst = None
        if self._watcher:
            self._watcher.rewind(step)
        if self._criteria:
            self._criteria.rewind(step)

    def take(self, records: Sequence[Event]) -> list[Event]:
        """Read records as they are written; returns what they show: findings, and judged criteria."""
        if any(isinstance(each, Control) and each.changes.keys() & {STEPS, PATIENCE} for each in records):
            return [*self.begin(has_first_weights=self._has_first_weights)]  # which reads these too
        judged: list[Event] = []
        for record in records:
            self._note(record)
            if self._criteria and (judgement := self._criteria.observe(record)):
                judged.append(judgement)
        found: list[Finding] = []
        if self._watcher:
            points = [point for each in records if (point := point_of(each, self._steps_per_epoch))]
            found += map(self._explain, self._watcher.add(*points))
        for record in [*found, *records]:
            self._note_undecided(record)
        return [*found, *judged]

    def decide(self, course: Course, step: int) -> Decision | None:
        """The decision that the policy makes of the first error since the last one, after a step."""
        worst, self._worst = self._worst, None
        if worst is None or self._policy.policy not in ("stop", "recover"):
            return None
        since = (worst.window or [worst.step])[0]
        began = f"since step {max(since, 1):,}" if worst.step else "found before the first step"
        reason = f"{worst.what}, {began}: {worst.evidence}"
        if self._policy.policy == "stop":
            return Decision("fail", f"{reason}; {worst.advice}")
        if self._recoveries >= self._policy.recoveries:
            times = f"watch.recoveries is {self._policy.recoveries}, and as often it went back"
            return Decision("fail", f"{reason}; {times}; {worst.advice}")
        return self._recover(worst, since, course, reason)

    def _recover(self, worst: Finding, since: int, course: Course, reason: str) -> Decision:
        self._settle()
        steps = [step_of(path.name) for path in list_checkpoints(self._run.checkpoints)]
        good = max((step for step in steps if step is not None and step < since), default=None)
        if good is None:
            keep = "a larger checkpoint.keep keeps one"  # that of step 0, which a recovery needs, was there
            if since <= 1:
                keep = f"it began with the run, and etude improve {self._run.name} writes a recipe against it"
            return Decision("fail", f"{reason}; there is no checkpoint before it to go back to: {keep}")
        # A change of a key that was planned for a later step would undo a remedy by the same key there.
        planned = read_progress(self._run.checkpoints / checkpoint_name(good)).changes
        later = [each.step for each in planned if each.key in worst.changes and each.step < worst.step]
        good = max([good, *(step for step in later if step in steps)])
        for key, value in self._remedies(worst, good, course):
            change = Change(good, key, value, f"{worst.what} at step {worst.step:,}", REQUEST)
            try:
                course.with_changes([change])
            except RecipeError:
                continue
            self._recoveries += 1
            return Decision("back", change.reason, REQUEST, change)
        return Decision("fail", f"{reason}; no change of a run that goes on would help; {worst.advice}")

    def _remedies(self, worst: Finding, good: int, course: Course) -> Iterator[tuple[str, Any]]:
        """Changes of the course against a finding, the best first."""
        for key, value in worst.changes.items():
            if key == SKIP:
                yield SKIP, worst.step - good  # all batches up to the end of what was found
            elif key == "optim.learning_rate":  # lower at each recovery
                rate = course.recipe_at(good).optim.learning_rate
                is_known = self._good_rate is not None and self._good_rate < rate
                yield key, self._good_rate if is_known else min(value, float(f"{_LOWER_RATE * rate:.4g}"))
            elif key in REMEDY_KEYS:
                yield key, value

    def why_unusable(self) -> str | None:
        """The reason why nothing was trained, where that is certain."""
        if self._stood_still:
            return f"{self._stood_still.what}: {self._stood_still.evidence}"
        if self._losses == {"lost"}:
            return "no step had a finite loss, so nothing was learnt; lower optim.learning_rate"
        if self._losses == {"zero"}:
            return "the loss was 0 at every step, as it is where no target is scored; look at etude data show"
        return None

    def _note_undecided(self, event: Event) -> None:
        """Keep the first error until something was done about it; a kill may come before that."""
        if isinstance(event, Finding) and event.severity == "error" and event.kind:
            self._worst = self._worst or event
        elif isinstance(event, Control) and self._worst:
            is_end = event.action == "fail" and event.reason.startswith(self._worst.what)
            self._worst = None if is_end or event.request == REQUEST else self._worst

    def _note(self, event: Event) -> None:
        if isinstance(event, Step):
            is_lost = event.skipped or not math.isfinite(event.loss)
            self._losses.add("lost" if is_lost else "zero" if event.loss == 0 else "usual")
        elif isinstance(event, Finding) and event.kind == NEVER_MOVED:
            self._stood_still = event
        elif isinstance(event, Finding) and event.kind and event.step == 0:
            self._good_rate = event.changes.get("optim.learning_rate", self._good_rate)
