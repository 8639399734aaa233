"""The kinds of training share this: a loss for the loop, and evaluations before, during and after training.

A new kind is a subclass of `Kind` in a file of its own and a row of three tables, as CONTRIBUTING.md says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from etude.data.corpus import Corpus
from etude.data.samples.sample import Samples
from etude.data.samples.weighted import Weighted
from etude.engine.batch import DeviceBatch
from etude.engine.loop import Objective
from etude.engine.world import World
from etude.evaluate.answers import continue_prompts
from etude.evaluate.exam import Exam
from etude.evaluate.tasks import Score, evaluate
from etude.recipe.schema import Recipe
from etude.records import events
from etude.scores.intervals import ratio_bootstrap
from etude.scores.systems import Measure
from etude.text import plural


@dataclass(frozen=True)
class Measured:
    """The result of one evaluation of one task.

    figures         by name, without the task's
    texts           what the model wrote, to record
    findings        what is to be known of the figures, recorded once in an attempt
    standard_error  of a figure by name, from the choice of rows; NaN where none is known
    predicted       predictions of the rows, which a measure that `measure_of` gives can score and compare
    executed        programs that were run, to record
    measure_of      a measure of the predictions by (figures, metric); None where nothing is predicted
    """

    score: Score
    figures: dict[str, float] = field(default_factory=dict)
    texts: list[events.Generation] = field(default_factory=list)
    findings: list[events.Finding] = field(default_factory=list)
    standard_error: Callable[[str], float] = lambda _: math.nan
    predicted: Any = None
    measure_of: Callable[[Sequence[str], str], Measure[Any]] | None = None
    executed: events.Execution | None = None

    def with_intervals(self) -> dict[str, list[float]]:
        """Figures of all rows as [value, low, high] at 95 %, where each batch is a row."""
        figures: dict[str, list[float]] = {}
        for name, values in self.score.ratios().items():
            interval = ratio_bootstrap(values)
            figures[name] = [float(values[:, 0].sum() / values[:, 1].sum()), interval.low, interval.high]
        names = [name for name, value in self.figures.items() if "/" not in name and value == value]
        if self.measure_of is not None and names:
            figures |= self.measure_of(names, names[0]).intervals(self.predicted)
        return figures


class Kind:
    """A kind of training that measures its loss alone; other kinds add what they can.

    is_worth_scoring_untrained  whether a model with drawn weights is evaluated before the first step
    writes_text                 whether its models continue or answer a text
    """

    is_worth_scoring_untrained = True
    writes_text = False

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32; or their weighted sums."""
        raise NotImplementedError

    def plain(self) -> "Kind":
        """The same kind without smoothing, weights and focus, which change the loss for training only."""
        return self

    def targets_per_sample(self, split: Samples) -> float:
        """Mean number, or weight, of the targets of a sample."""
        return split.targets_per_sample if isinstance(split, Weighted) else split.spans.scored / len(split)

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        """Names of the figures of `measure` beside the loss, without those of a label or capability."""
        return set()

    def measure(self, exam: Exam) -> Measured:
        """Evaluate a model on its validation samples; called on every rank."""
        return Measured(self.score(exam))

    def write(self, exam: Exam, prompt: str) -> list[events.Generation]:
        """The continuation of a prompt, where the model writes text."""
        if not (self.writes_text and exam.writes_text):
            return []
        settings = exam.recipe.evaluate.model_copy(update={"prompts": [prompt]})
        recipe = exam.recipe.model_copy(update={"evaluate": settings})
        with exam.precision.autocast():
            return continue_prompts(exam.model, exam.corpus, recipe, exam.step)

    def keep_before(self, exam: Exam) -> None:
        """Keep the predictions of the model before training, for `compare`."""

    def is_compared(self, corpus: Corpus) -> bool:
        """True if `compare` has rows to score."""
        return bool(corpus.test)

    def compare(self, exam: Exam, step: int) -> events.Scores | None:
        """Score the model of a step on the test set; kinds that have baselines score these beside it.

        Rank 0 has the answer, if any.
        """
        if not exam.world.is_main:
            return None
        measured = self.measure(_on_test(exam))
        figures = measured.with_intervals()
        metric = wanted if (wanted := exam.main_figure()) in figures else "loss"
        assert exam.corpus.test is not None
        answered = len(measured.predicted or ())
        return events.Scores(
            step=step, rows=len(exam.corpus.test), split=f"{exam.task} test".strip(), metric=metric,
            systems={"after": figures}, gains={},
            notes=[f"figures of answers are over {plural(answered, 'row')}"] if answered else [],
        )  # fmt: skip

    def score(self, exam: Exam, objective: Objective | None = None) -> Score:
        """The loss of the validation samples, without weights or smoothing, or by an objective."""
        split, most = exam.corpus.validation, exam.recipe.evaluate.max_samples
        assert split is not None
        batches = exam.batches(split, most)
        return evaluate(
            exam.model, batches, objective or self.plain(), exam.precision, exam.world,
            self.token_bytes(exam.corpus),
        )  # fmt: skip

    def token_bytes(self, corpus: Corpus) -> np.ndarray | None:
        """The bytes (V,) of each token where the loss is that of the text, which then has bits per byte."""
        return None


def _on_test(exam: Exam) -> Exam:
    """An exam of this rank alone on all of the test set, one sample a batch."""
    corpus, evaluate = exam.corpus, exam.recipe.evaluate
    examples = {**corpus.examples_of, "validation": corpus.examples_of.get("test", ())}
    settings = evaluate.model_copy(update={"max_samples": None, "prompts": []})
    return replace(
        exam, corpus=replace(corpus, validation=corpus.test, examples_of=examples), micro_batch_size=1,
        recipe=exam.recipe.model_copy(update={"evaluate": settings}), world=World(exam.world.device),
        exercises=(),
    )  # fmt: skip


def count_targets(labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The number of labels, or the sum of their weights, () fp32."""
    return torch.tensor(float(len(labels)), device=labels.device) if weights is None else weights.sum()
