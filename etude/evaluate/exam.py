"""A model with the held-out samples that it is evaluated on, and the place for its predictions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from etude.data.batch import NumpyBatch
from etude.data.corpus import Corpus
from etude.data.loader import iterate_once
from etude.data.samples.sample import Samples
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.evaluate.execute import Exercise
from etude.models.families.table import family_of
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A model of a step, and the held-out samples of one task.

    folder       where its predictions go
    task         its name, if a run has several
    is_fresh     whether the first weights of the model were drawn by chance
    writes_text  whether the model can continue a text
    exercises    that it is to solve by programs
    """

    model: nn.Module
    corpus: Corpus
    recipe: Recipe
    precision: Precision
    world: World
    micro_batch_size: int
    folder: Path
    metric: ChosenMetric
    step: int
    task: str = ""
    is_fresh: bool = False
    writes_text: bool = True
    exercises: tuple[Exercise, ...] = ()

    def held_out(self) -> dict[str, Samples]:
        """The validation and the test set, as far as there are any."""
        named = {"validation": self.corpus.validation, "test": self.corpus.test}
        return {use: split for use, split in named.items() if split}

    def main_figure(self) -> str:
        """The metric of the run, if it is of this task."""
        return self.metric.name if self.metric.task == self.task else "loss"

    def notes(self) -> list[str]:
        """Notes for readers of the final scores."""
        if self.corpus.test is not None or not self.corpus.validation:
            return []
        chosen = "without a test set these rows also chose the best checkpoint"
        return [f"{chosen}, so the scores may be a little too good"]

    def scored(self) -> str:
        """The set that the final scores are of: the test set, if there is one."""
        return "test" if self.corpus.test else "validation"

    def batches(self, split: Samples, max_samples: int | None = None) -> Iterator[NumpyBatch]:
        """This rank's part of a split, or of some evenly spaced samples of it."""
        size, attend = self.micro_batch_size, self.recipe.data.attend_across_documents
        rank, ranks = self.world.rank, self.world.size
        up_to = family_of(self.model).sharing(self.model, False, True).up_to
        batches = iterate_once(
            split, size, attend, rank=rank, ranks=ranks, max_samples=max_samples, share_up_to=up_to
        )
        return (replace(batch, task=self.task) for batch in batches)
