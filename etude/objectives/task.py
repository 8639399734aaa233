"""One task of a run: its recipe, its data and its kind of training."""

from dataclasses import dataclass

from etude.data.corpus import Corpus
from etude.evaluate.execute import Exercise
from etude.objectives.kind import Kind
from etude.recipe.schema import Recipe

# The losses of several tasks are joined as training weighs them, which is no loss of a token.
_OF_ONE_TASK = {"perplexity", "bits_per_byte"}


@dataclass(frozen=True)
class Task:
    """A task with the recipe as it alone would have it. The only task of a run has no name.

    exercises  that its model is to solve by programs at evaluations
    """

    name: str
    recipe: Recipe
    corpus: Corpus
    kind: Kind
    exercises: tuple[Exercise, ...] = ()

    def named(self, figure: str) -> str:
        """The name that a figure of this task has in the run."""
        return f"{self.name}:{figure}" if self.name else figure

    def metrics(self) -> set[str]:
        """The figures of an evaluation that may be chosen as the metric."""
        figures = self.kind.figures(self.recipe, self.corpus) | {"loss"}
        return {self.named(figure) for figure in (figures - _OF_ONE_TASK if self.name else figures)}
