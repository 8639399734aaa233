"""The work of evaluations and of final scores: samples to score, texts to write."""

from dataclasses import dataclass

from etude.evaluate.answers import ROWS_AT_ONCE
from etude.objectives.task import Task
from etude.plan import Plan
from etude.recipe.schema import Evaluate


@dataclass(frozen=True)
class Work:
    """The work of evaluations: samples that are scored, texts, and tokens of those written together."""

    samples: int = 0
    tokens: int = 0
    texts: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.samples + other.samples, self.tokens + other.tokens, self.texts + other.texts)


def evaluation_work(plan: Plan) -> Work:
    """The work of one evaluation of all tasks."""
    return sum((_evaluation_work(task, plan.recipe.evaluate) for task in plan.tasks), Work())


def final_work(plan: Plan) -> Work:
    """The work of the scores before and after training, of kinds that have such."""
    return sum((_final_work(task, plan.pretrained is not None) for task in plan.tasks), Work())


def has_baselines(task: Task) -> bool:
    """True if the final scores of a task stand beside baselines."""
    return task.recipe.kind.has_labels or task.recipe.kind.joins_texts


def _evaluation_work(task: Task, recipe: Evaluate) -> Work:
    """The loss of validation samples; for kinds that write, answers to some and continuations of prompts."""
    split = task.corpus.validation
    samples = min(len(split), recipe.max_samples or len(split)) if split else 0
    work = _evaluation_of(task, samples, len(task.corpus.examples), recipe) + _programs_of(task, recipe)
    if not (task.recipe.kind.writes_text and recipe.prompts):
        return work
    return work + Work(0, recipe.sample_tokens, len(recipe.prompts))


def _programs_of(task: Task, recipe: Evaluate) -> Work:
    """Programs of the exercises, all samples of one written together; this rank has a part of them."""
    execute = recipe.execute
    if execute is None or not task.exercises:
        return Work()
    count = -(-len(task.exercises) // task.recipe.train.devices)
    passes = count * -(-execute.samples // ROWS_AT_ONCE)
    if execute.warmth == 0:
        passes = -(-count // ROWS_AT_ONCE)
    return Work(0, passes * execute.max_tokens, count * execute.samples)


def _evaluation_of(task: Task, samples: int, examples: int, recipe: Evaluate) -> Work:
    answers = min(recipe.answers, examples) if task.recipe.kind.writes_text else 0
    return Work(samples, -(-answers // ROWS_AT_ONCE) * recipe.answer_tokens, answers)


def _final_work(task: Task, is_pretrained: bool) -> Work:
    held_out = sum(len(split) for split in (task.corpus.validation, task.corpus.test) if split)
    if not task.kind.is_compared(task.corpus):
        return Work()
    if not has_baselines(task):  # the test set, like an evaluation
        on_test = task.corpus.examples_of.get("test", ())
        return _evaluation_of(task, len(task.corpus.test or ()), len(on_test), task.recipe.evaluate)
    if not task.recipe.kind.writes_text:
        return Work(2 * held_out)
    times = 1 + is_pretrained
    tokens = -(-held_out // ROWS_AT_ONCE) * task.recipe.evaluate.answer_tokens
    return Work(held_out, times * tokens, times * held_out)
