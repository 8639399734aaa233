"""The one place that chooses a kind of training."""

from collections.abc import Callable, Sequence

from etude.data.corpus import Corpus
from etude.objectives.causal import Causal
from etude.objectives.classification import Classification
from etude.objectives.kind import Kind
from etude.objectives.masked import Masked
from etude.objectives.own import OwnLoss
from etude.objectives.seq2seq import Seq2Seq
from etude.objectives.several import Several
from etude.objectives.task import Task
from etude.own import Own
from etude.recipe.schema import Recipe


def _classification(recipe: Recipe, corpus: Corpus) -> Kind:
    assert corpus.labels is not None
    return Classification.of(recipe.loss, corpus.train, multi=corpus.labels.multi)


KINDS: dict[str, Callable[[Recipe, Corpus], Kind]] = {
    "causal": lambda recipe, corpus: Causal(),
    "masked": lambda recipe, corpus: Masked(),
    "seq2seq": lambda recipe, corpus: Seq2Seq(recipe.loss.label_smoothing),
    "classification": _classification,
}


def choose_kind(recipe: Recipe, corpus: Corpus, own: Own) -> Kind:
    """The kind of training of one task: by train.objective, or with the loss that the user brings."""
    return OwnLoss(own.loss) if own.loss is not None else KINDS[recipe.train.objective](recipe, corpus)


def join_kinds(tasks: Sequence[Task]) -> Kind:
    """The kind of the only task, or all kinds as one; a sample of each task counts the same."""
    if not tasks[0].name:
        return tasks[0].kind
    weights = {task.name: 1 / task.kind.targets_per_sample(task.corpus.train) for task in tasks}
    return Several({task.name: task.kind for task in tasks}, weights)
