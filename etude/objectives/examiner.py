"""Evaluations of a run: all tasks, before training, during it and at its end. Nothing is recorded here."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from etude.data.mixture import Mixture
from etude.data.samples.sample import Samples
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.loop import TrainState
from etude.engine.out_of_memory import is_out_of_memory, release
from etude.engine.world import World
from etude.evaluate.exam import Exam
from etude.evaluate.judge import Judge
from etude.evaluate.tasks import Score
from etude.interruption import interruption_point
from etude.objectives.kind import Measured
from etude.objectives.several import join_scores
from etude.objectives.task import Task
from etude.own import Own
from etude.recipe.metric import ChosenMetric
from etude.records import events

_NOISE = "improvement within the noise"  # which is looked for once, as it takes a bootstrap


@dataclass(kw_only=True)
class Examiner:
    """Evaluates the model of a run on the held-out samples of all its tasks.

    train      the training samples, whose shares weigh the losses of several tasks
    folder     where predictions are kept
    is_fresh   whether the first weights were drawn by chance
    """

    tasks: Sequence[Task]
    train: Samples | Mixture
    metric: ChosenMetric
    judge: Judge
    own: Own
    state: TrainState
    world: World
    folder: Path
    is_fresh: bool
    _known: set[str] = field(default_factory=set)

    def evaluate(self, *, before: bool = False, asked: bool = False) -> list[events.Event]:
        """One evaluation as its records: findings, figures, texts.

        `before` training it is never the best, and one that was `asked` for decides nothing.
        """
        started, step = time.perf_counter(), self.state.step
        measured = {task.name: task.kind.measure(self._exam(task)) for task in self.tasks}
        figures: dict[str, float] = {}
        for task in self.tasks:
            mine = measured[task.name]
            figures |= {task.named(name): value for name, value in mine.figures.items()}
            if task.name:
                figures[task.named("loss")] = mine.score.loss
        for name in self.own.metrics:  # of all samples, on every rank
            figures[name] = self._measure_own(name)
        found = list(self._find(measured))
        self.world.wait()  # from here on no rank leaves the evaluation, which is judged
        score = self._join({name: mine.score for name, mine in measured.items()})
        own = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}
        # A model without a finite loss is broken, whatever its answers look like: F1 of NaN is a plain 0.
        value = {**own, **figures}.get(str(self.metric)) if math.isfinite(score.loss) else None
        evaluation = events.Evaluation(
            step=step,
            loss=score.loss,
            perplexity=score.perplexity,
            bits_per_byte=score.bits_per_byte,
            targets=score.targets,
            seconds=max(round(time.perf_counter() - started, 3), 0.0),
            best=not before and not asked and self.judge.judge(math.nan if value is None else value, step),
            metrics=figures,
            loss_error=score.error,
            asked=asked,
        )
        texts = [text for mine in measured.values() for text in mine.texts]
        executed = filter(None, (mine.executed for mine in measured.values()))
        return [*found, evaluation, *texts, *executed]

    def forget(self) -> None:
        """Report findings again that were reported before, as an attempt does."""
        self._known.clear()

    def keep_before(self) -> None:
        """Keep the predictions of the model before training, for the comparison at the end."""
        for task in self.tasks:
            task.kind.keep_before(self._exam(task))

    def compared(self) -> list[Task]:
        """The tasks that are scored at the end."""
        return [task for task in self.tasks if task.kind.is_compared(task.corpus)]

    def compare(self, step: int) -> list[events.Scores]:
        """Score the model, with the weights of a step, beside itself before training and baselines."""
        scores = [task.kind.compare(self._exam(task), step) for task in self.compared()]
        return [each for each in scores if each is not None]

    def write(self, prompt: str) -> list[events.Generation]:
        """The continuation of a prompt by each task that writes text, on rank 0."""
        return [text for task in self.tasks for text in task.kind.write(self._exam(task), prompt)]

    def _exam(self, task: Task) -> Exam:
        return Exam(
            model=self.state.model,
            corpus=task.corpus,
            recipe=task.recipe,
            precision=self.state.precision,
            world=self.world,
            micro_batch_size=self.state.course.at(self.state.step).micro_batch_size,
            folder=self.folder / task.name,
            task=task.name,
            metric=self.metric,
            step=self.state.step,
            is_fresh=self.is_fresh,
            writes_text=self.own.model is None,
            exercises=task.exercises,
        )

    def _join(self, scores: Mapping[str, Score]) -> Score:
        return join_scores(scores, self.train) if isinstance(self.train, Mixture) else scores[""]

    def _find(self, measured: Mapping[str, Measured]) -> Iterator[events.Finding]:
        """The findings of an evaluation that this attempt has not had yet."""
        for finding in (finding for mine in measured.values() for finding in mine.findings):
            if finding.what not in self._known:
                self._known.add(finding.what)
                yield finding
        least, name = self.judge.recipe.min_improvement, self.metric.name
        if not least or self.metric.task not in measured or _NOISE in self._known:
            return
        self._known.add(_NOISE)
        error = measured[self.metric.task].standard_error(name)
        if least < 2 * error:
            evidence = (
                f"evaluate.min_improvement is {least:g}, but the standard error of {name} is {error:.4f}"
            )
            chance = f"gains below {2 * error:.4f} may be chance"
            advice = f"{chance}: raise min_improvement, patience, or the validation set"
            yield events.Finding(self.state.step, _NOISE, evidence, advice)

    def _measure_own(self, name: str) -> float:
        """A metric of the user's, again with half the batch where it has no memory."""
        size = self.state.course.at(self.state.step).micro_batch_size
        while True:
            try:
                batches = self._validation(size)
                return self.own.measure(name, self.state.model, self.state.precision, batches)
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                release(error)
            size //= 2

    def _validation(self, size: int) -> Iterator[DeviceBatch]:
        """The validation samples of all tasks as a loss gets them, the same on every rank."""
        alone = World(self.world.device)
        for task in self.tasks:
            exam = replace(self._exam(task), world=alone, micro_batch_size=size)
            split = task.corpus.validation
            assert split is not None
            for batch in exam.batches(split, task.recipe.evaluate.max_samples):
                interruption_point()
                yield to_device(batch, self.world.device)
