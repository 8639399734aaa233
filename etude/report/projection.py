"""The pace of a run projected onto another number of rows or steps, from its records alone."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from etude.errors import InputError
from etude.records.events import CheckpointSaved
from etude.records.folder import as_argument
from etude.report.history import History
from etude.report.summary import size_on_disk
from etude.report.wording import duration, size
from etude.text import plural, rough_duration

_DRIFT = 0.15


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A run as it would be with other rows or steps.

    step_seconds     mean of a step of the run
    beside_seconds   before the first step and after the last, as in the run
    seconds          of the whole; interval: between which it is to lie
    """

    run: str
    rows: int | None
    measured_steps: int
    steps: int
    steps_per_epoch: int
    evaluations: int
    step_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    beside_seconds: float
    seconds: float
    interval: list[float]
    tokens: int
    memory_bytes: int | None
    disk_bytes: int

    def table(self) -> Iterator[tuple[str, str]]:
        """Rows for people: (name, value)."""
        rows = f"{self.rows:,} training rows, " if self.rows is not None else ""
        yield (
            "from",
            f"{self.run}, {plural(self.measured_steps, 'step')} at {1000 * self.step_seconds:,.4g} ms each",
        )
        yield (
            "steps",
            f"{rows}{plural(self.steps, 'step')}, {self.steps_per_epoch:,} an epoch; {self.tokens:,} tokens",
        )
        low, high = map(rough_duration, self.interval)
        yield "time", f"about {rough_duration(self.seconds)} ({low} to {high}), by the pace of the run"
        in_steps, evaluations = (
            duration(self.steps * self.step_seconds),
            plural(self.evaluations, "evaluation"),
        )
        parts = [
            f"{in_steps} in steps", f"{duration(self.evaluation_seconds)} in {evaluations}",
            f"{duration(self.checkpoint_seconds)} for checkpoints",
            f"{duration(self.beside_seconds)} before and after",
        ]  # fmt: skip
        yield "of it", ", ".join(parts)
        memory = "" if self.memory_bytes is None else f"{size(self.memory_bytes)} of memory, as measured; "
        yield "size", f"{memory}{size(self.disk_bytes)} on disk"

    def values(self) -> dict[str, Any]:
        """The figures by name, for JSON."""
        return asdict(self)


def project(history: History, *, rows: int | None = None, steps: int | None = None) -> Projection:
    """Project a run onto another number of training rows, or of steps; with neither, onto all of its own.

    Evaluations stay at the intervals of the recipe, and of the size that they had. Raises: InputError for a
    run without steps, and for rows where the recipe counts steps and not passes.
    """
    run, made, name = history.run, history.steps, as_argument(history.run.path)
    if len(made) < 2 or not history.attempts:
        wrong = f"run {run.name} has {plural(len(made), 'step')}, which is no pace"
        raise InputError(f"{wrong}; give a run with two or more")
    recipe, attempt = run.recipe, history.attempts[-1]
    batch = max(step.samples for step in made)
    per_epoch = attempt.steps_per_epoch if rows is None else -(-rows // batch)
    if steps is None:
        if rows is not None and recipe.train.epochs is None:
            raise InputError(f"run {name} is of train.steps, not of passes over its rows; give --steps N")
        steps = attempt.steps if recipe.train.epochs is None else recipe.train.epochs * per_epoch
    usual = [step.seconds for step in made[1:]]
    each = sum(usual) / len(usual)
    evaluated = history.evaluations
    evaluation = sum(one.seconds for one in evaluated) / len(evaluated) if evaluated else 0.0
    every = recipe.evaluate.every_steps or (recipe.evaluate.every_epochs or 1) * per_epoch
    evaluations = (-(-steps // every) + any(not one.step for one in evaluated)) if evaluated else 0
    saves = history.events(CheckpointSaved)
    done = made[-1].step
    waiting = sum(save.blocking_seconds for save in saves) * steps / done
    inside = sum(step.seconds for step in made) + sum(one.seconds for one in evaluated)
    inside += sum(save.blocking_seconds for save in saves) + sum(step.seconds for step in history.rework)
    beside = max(history.wall_seconds - inside, 0.0)
    seconds = steps * each + evaluations * evaluation + waiting + beside
    tokens = sum(step.targets if step.tokens is None else step.tokens for step in made)
    resources = [window.resource for window in history.windows if window.resource]
    memory = max((one.gpu_memory_bytes or one.rss_bytes for one in resources), default=None)
    return Projection(
        run=run.name, rows=rows, measured_steps=len(made), steps=steps, steps_per_epoch=per_epoch,
        evaluations=evaluations, step_seconds=each, evaluation_seconds=evaluations * evaluation,
        checkpoint_seconds=waiting, beside_seconds=beside, seconds=round(seconds, 3),
        interval=[round(seconds * (1 - _DRIFT), 3), round(seconds * (1 + _DRIFT), 3)],
        tokens=round(tokens * steps / len(made)), memory_bytes=memory, disk_bytes=size_on_disk(run),
    )  # fmt: skip
