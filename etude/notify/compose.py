"""Messages made of the records of a run, with its figures and advice."""

import math
import re
import socket

from etude.notify.message import Message
from etude.notify.redact import redact
from etude.records import events
from etude.records.ending import Ending
from etude.records.events import Event
from etude.records.folder import as_argument
from etude.records.ledger import Ledger
from etude.records.store import Run
from etude.text import command, one_line

_PARTS = {1: "a quarter", 2: "half", 3: "three quarters"}
_LONGEST_PART = 1500  # characters


class Composer:
    """Turns the records of one run into messages, as they come."""

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self._run = run
        self._argument = as_argument(run.path)
        self._attempt: events.Attempt | None = None
        self._figures: dict[str, float] = {}
        self._met: set[str] = set()
        self._step = self._quarters = 0
        for entry in ledger.entries:
            self._note(entry.event)

    def take(self, event: Event) -> list[Message]:
        """The messages that a record gives."""
        before, met = self._quarters, self._met
        self._note(event)
        if isinstance(event, events.Step):
            return []
        match event:
            case events.Finding():
                return [self._finding(event)]
            case events.Control():
                return self._end(event)
            case events.Evaluation() if event.step:
                return [self._evaluation(event)]
            case events.Judgement():
                return [
                    self._make("milestone", "info", f"met {each}", event.step, f"criterion met: {each}")
                    for each in sorted(self._met - met)
                ]
            case events.Resource() if self._quarters > before and self._quarters in _PARTS:
                what = f"{_PARTS[self._quarters]} of the steps are made"
                return [self._make("milestone", "info", what, event.step, what)]
        return []

    def died(self, what: str, moment: float, tail: list[str], advice: str) -> Message:
        """The message on a process that ended, or hangs, without a word; tail: the last lines of its log."""
        log = ["the end of its log:", *(one_line(line) for line in tail)] if tail else []
        return self._make(
            "fault", "error", f"{what} {moment:.0f}", self._step, f"{what}: {advice}", more="\n".join(log),
            commands=[f"etude resume {self._argument}"],
        )  # fmt: skip

    def _note(self, event: Event) -> None:
        figures = self._figures
        if isinstance(event, events.Step):
            self._figures["loss"] = event.loss
            self._step = event.step
            return
        match event:
            case events.Attempt():
                self._attempt, self._step = event, event.from_step
            case events.Resource() if self._attempt:
                self._step = event.step
                figures["tokens/s"] = event.tokens_per_second
                self._quarters = event.step * 4 // max(self._attempt.steps, 1)
            case events.Evaluation():
                figures["validation loss"] = event.loss
                if event.best:
                    figures |= {"best validation loss": event.loss, "at step": event.step}
            case events.Judgement():
                self._met = set(event.met)

    def _finding(self, event: events.Finding) -> Message:
        changes = ", ".join(f"{key} = {value}" for key, value in event.changes.items())
        advice = event.advice + (f" (for example {changes})" if changes else "")
        said = f"{event.what}: {event.evidence}\nTo do: {advice}"
        cause = f"finding {event.kind or event.what}"
        commands = [f"etude show {self._argument}", f"etude stop {self._argument}"]
        return self._make(
            "finding", event.severity, cause, event.step, event.what, more=said, commands=commands
        )

    def _end(self, event: events.Control) -> list[Message]:
        ending = Ending.of(event)
        if ending is None:
            return []
        number = self._attempt.number if self._attempt else 0
        start = self._attempt.from_step if self._attempt else 0
        reason, resume = event.reason, [f"etude resume {self._argument}"]
        if ending.state == "failed":
            # The same fault at the same place, as of a run that is started again and again, is told once.
            cause = f"fault {start} {re.sub('[0-9]+', '#', reason)[:200]}"
            return [self._make("fault", "error", cause, event.step, f"it failed: {reason}", commands=resume)]
        if ending.state == "finished":
            return [self._make("finished", "info", "finished", event.step, f"it is finished: {reason}")]
        # As a session does that ends; a person or a signal that asks for the end stops it.
        is_paused = ending.state == "paused"
        kind, what = ("session end", "it is paused") if is_paused else ("stopped", "it stopped")
        cause, title = f"{kind} {number}", f"{what}: {reason}"
        return [self._make(kind, "info", cause, event.step, title, commands=resume)]

    def _evaluation(self, event: events.Evaluation) -> Message:
        names = [name for name in event.metrics if "/" not in name][:8]
        said = ", ".join(f"{name} {event.metrics[name]:.4g}" for name in names)
        best = ", the best so far" if event.best else ""
        cause = f"evaluation {event.step}"
        title = f"validation loss {event.loss:.4f}{best}"
        return self._make("evaluation", "info", cause, event.step, title, more=said)

    def _make(
        self, kind: str, severity: str, cause: str, step: int, title: str, *, more: str = "",
        commands: list[str] | None = None,
    ) -> Message:  # fmt: skip
        steps = self._attempt.steps if self._attempt else 0
        where = f"step {step:,}" + (f" of {steps:,} ({step / steps:.0%})" if steps else "")
        figures = {name: value for name, value in self._figures.items() if math.isfinite(value)}
        shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        place = f"{where}, on {socket.gethostname()}"
        text = "\n".join(part[:_LONGEST_PART] for part in (more, place, shown) if part)
        return Message(
            kind=kind, severity=severity, cause=one_line(redact(cause), 300), run=self._run.name, step=step,
            title=one_line(redact(f"{self._run.name}: {title}"), 300), text=redact(text), figures=figures,
            commands=[redact(each) for each in commands or [f"etude show {self._argument}"]],
        )  # fmt: skip


def sample(kind: str) -> Message:
    """A message of a kind as `etude notify test` sends it."""
    return Message(
        kind=kind, severity="info", cause=f"test {kind}", run="test", step=0,
        title=f"etude notify test: {kind}", text="This is a test; no run has done anything.",
        commands=[command("etude", "runs")],
    )  # fmt: skip
