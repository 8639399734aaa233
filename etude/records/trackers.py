"""Channels that get the records as they come: log.txt, trainer_state.json, and the services of a recipe.

A tracker has `write(event)` and `close()`. One that fails is named once and dropped; a run never depends on
it.
"""

import logging
import math
from dataclasses import replace
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.changes import planned_by
from etude.records.events import Event
from etude.records.journal import Reader
from etude.records.ledger import Ledger
from etude.records.services import SERVICES
from etude.records.store import Run, RunWriter
from etude.records.window import OpenWindow
from etude.text import expected, plural, printable

_MOST_REFUSALS = 20  # of a window that have a line each; a flood is counted


def open_trackers(recipe: Recipe, writer: RunWriter, reader: Reader) -> None:
    """Let the trackers that a recipe names follow a run; one that cannot be opened is named and left out."""
    for name in recipe.records.trackers:
        try:
            writer.trackers.append(SERVICES[name](writer.run, reader.read()))
        except Exception as error:  # whatever its package raises: no network, no account, no room
            writer.warn(f"tracker {name} could not be opened and is off: {type(error).__name__}: {error}")


def require_trackers(recipe: Recipe) -> None:
    """Raises: InputError if a tracker the recipe names is not installed."""
    from importlib.util import find_spec

    for name in recipe.records.trackers:
        if find_spec(name) is None:  # a service has the name of its package
            raise InputError(
                f'records.trackers names "{name}", which is not installed; run pip install '
                '"etude-workbench[track]"'
            )


class TextLog:
    """log.txt: the run for a person, a line a window."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._window = OpenWindow()

    def write(self, event: Event) -> None:
        if line := describe(event, self._window):
            self._writer.log(line)

    def close(self) -> None:
        pass


class FindingLog:
    """A channel of the findings to the logger `etude`, which writes to stderr where nobody sets it up."""

    def write(self, event: Event) -> None:
        if isinstance(event, events.Finding) and event.severity != "info":
            logging.getLogger("etude").warning("%s", printable(describe(event, OpenWindow())))

    def close(self) -> None:
        pass


def describe(event: Event, window: OpenWindow) -> str | None:
    """One line for people about a record, or None where there is nothing to say."""
    if (ended := window.add(event)) and ended.resource:
        rest = f"  {ended.skipped} of {plural(len(ended.steps), 'step')} skipped" if ended.skipped else ""
        if (more := ended.refused - _MOST_REFUSALS) > 0:
            rest += f"  {plural(more, 'more request')} refused"
        return (
            f"step {ended.step:,}  loss {ended.loss:.4f}  norm {ended.grad_norm:.3f}  "
            f"lr {ended.learning_rate:.2e}  {ended.resource.tokens_per_second:,.0f} tokens/s{rest}"
        )
    match event:
        case events.Attempt():
            verb = f"continues from step {event.from_step:,}" if event.from_step else "starts"
            return (
                f"attempt {event.number} {verb}: {plural(event.steps, 'step')}, {event.parameters['total']:,}"
                f" parameters, {event.device}, {event.precision}, micro-batch {event.micro_batch_size}"
            )
        case events.Evaluation():
            bits = "" if event.bits_per_byte is None else f"  {event.bits_per_byte:.4f} bits per byte"
            headline = [
                name for name in event.metrics if "/" not in name and not name.endswith(("_macro", "_micro"))
            ]
            known = [name for name in headline if not math.isnan(event.metrics[name])]
            others = "".join(f"  {name} {event.metrics[name]:.4f}" for name in known)
            return (
                f"step {event.step:,}  validation loss "
                f"{event.loss:.4f}{bits}{others}{'  best' if event.best else ''}"
            )
        case events.Scores():
            said = [f"{name} {values[event.metric][0]:.4f}" for name, values in event.systems.items()]
            rows = plural(event.rows, f"{event.split} row")
            return f"step {event.step:,}  {event.metric} on {rows}: {', '.join(said)}"
        case events.Generation() if (
            event.reference is None
        ):  # answers are many; their figures are in the evaluation
            return f"step {event.step:,}  {event.prompt!r} continues {event.text!r}"
        case events.CheckpointSaved():
            return f"step {event.step:,}  saved {event.name}, {event.size / 1e6:.1f} MB"
        case events.Forecast():
            kind = "forecast" if event.step else "estimate"
            return f"{kind}: {expected(event.seconds, event.memory_bytes, event.disk_bytes)}"
        case events.Finding():
            mark = "error: " if event.severity == "error" else ""
            return f"step {event.step:,}  {mark}{event.what}: {event.evidence}; {event.advice}"
        case events.Judgement():
            return f"step {event.step:,}  criteria: {describe_judgement(event)}"
        case events.Control() if event.action in events.REFUSALS and window.refused >= _MOST_REFUSALS:
            last = (
                f"step {event.step:,}  {event.action}: {event.reason}; more until the next losses are counted"
            )
            return last if window.refused == _MOST_REFUSALS else None
        case events.Control() if event.action != "fail":  # the command ends with that error
            return f"step {event.step:,}  {event.action}: {event.reason}"
    return None


def describe_judgement(event: events.Judgement) -> str:
    """A line such as `1 of 3 met; not gap below 0.5 (1.25); not measured: test:bleu above 20`."""
    left: dict[str, list[str]] = {"not ": [], "open: ": [], "not measured: ": []}
    for name, value in event.values.items():
        if name not in event.met:
            word = "open: " if name in event.open else "not measured: " if value is None else "not "
            left[word].append(name if value is None else f"{name} ({value:.3g})")
    said = [word + ", ".join(names) for word, names in left.items() if names]
    return "; ".join([f"{len(event.met)} of {len(event.values)} met", *said])


class TrainerState:
    """trainer_state.json: the log history as transformers' TrainerState and plotting scripts read it.

    It is written at each checkpoint. Epochs are steps over steps of an epoch, so 0.5 is half of the first.
    """

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self._run = run
        self._window = OpenWindow()
        self._attempt: events.Attempt | None = None
        self._history: list[dict[str, Any]] = []
        for entry in ledger.entries:
            self._remember(entry.event)

    def write(self, event: Event) -> None:
        self._remember(event)
        if isinstance(event, events.CheckpointSaved):
            best, attempt = self._run.best or {}, self._attempt
            folder = self._run.checkpoints / best["checkpoint"] if best else None
            durable.write_json(
                self._run.path / "trainer_state.json",
                {
                    **self._place(event.step),
                    "global_step": event.step,
                    "max_steps": attempt.steps if attempt else 0,
                    "num_train_epochs": math.ceil(attempt.steps / attempt.steps_per_epoch) if attempt else 0,
                    "best_metric": best.get("value"),
                    "best_global_step": best.get("step"),
                    "best_model_checkpoint": folder and str(folder),
                    "log_history": self._history,
                },
            )

    def close(self) -> None:
        pass

    def _remember(self, event: Event) -> None:
        if isinstance(event, events.Attempt):
            self._attempt = event
        elif self._attempt and (planned := planned_by(event)):
            self._attempt = replace(self._attempt, steps=planned)
        if window := self._window.add(event):
            values = {key: _finite(getattr(window, key)) for key in ("loss", "grad_norm", "learning_rate")}
            skipped = {"skipped_steps": window.skipped} if window.skipped else {}
            self._history.append({**values, **skipped, **self._place(window.step), "step": window.step})
        elif isinstance(event, events.Evaluation):
            figures = {"loss": event.loss, **event.metrics}
            values = {f"eval_{name}": _finite(value) for name, value in figures.items()}
            self._history.append({**values, **self._place(event.step), "step": event.step})

    def _place(self, step: int) -> dict[str, float]:
        """The epochs that a step is the end of; none before the first attempt is known."""
        return {"epoch": step / self._attempt.steps_per_epoch} if self._attempt else {}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
