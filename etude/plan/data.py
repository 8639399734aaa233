"""The data of a plan: prepared for each task, their labels laid over those of the base."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from etude.data.corpus import Corpus, lay_out
from etude.data.labels import Labels, lay_over
from etude.data.mixture import Mixture, mix
from etude.data.prepared import prepare
from etude.data.samples.sample import Samples
from etude.errors import InputError, RecipeError
from etude.evaluate.answers import encode_prompts
from etude.evaluate.execute import choose_exercises
from etude.evaluate.solve import encode_exercises, require_room
from etude.models.families.family import Pretrained
from etude.models.hf_config import default_names
from etude.objectives.choose import choose_kind
from etude.objectives.task import Task
from etude.own import Own
from etude.plan.model import DataSizes
from etude.recipe.schema import Recipe


def prepare_tasks(
    recipe: Recipe, base: Pretrained | None, own: Own, *, today: str | None
) -> tuple[tuple[Task, ...], Pretrained | None]:
    """Prepare the data of each task; returns the tasks, and the base with the classes that it then has.

    today: the day (YYYY-MM-DD) that a chat template may write. Raises: RecipeError with the problems of all
    tasks.
    """
    tasks, problems = [], []
    for name, part in recipe.by_task().items():
        try:
            corpus = prepare(part, tokenizer_folder=base.path if base else None, today=today)
        except InputError as error:
            problems.append(str(error))
            continue
        corpus = _with_ends_of(base, part, corpus)
        tasks.append(Task(name, part, corpus, choose_kind(part, corpus, own)))
    if problems:
        raise RecipeError(problems)
    if base is not None:
        base = replace(base, labels=0)
        if tasks[0].corpus.labels is not None and not recipe.tasks:
            corpus, base = _lay_labels(tasks[0].corpus, tasks[0].corpus.labels, base)
            tasks = [replace(tasks[0], corpus=corpus, kind=choose_kind(tasks[0].recipe, corpus, own))]
    return tuple(tasks), base


def join_samples(recipe: Recipe, tasks: Sequence[Task]) -> Samples | Mixture:
    """The training samples of the only task, or of all tasks in the ratios of the recipe."""
    if not recipe.tasks:
        return tasks[0].corpus.train
    ratios = {name: task.ratio for name, task in recipe.tasks.items()}
    return mix({task.name: task.corpus.train for task in tasks}, ratios)


def data_sizes(tasks: Sequence[Task], samples: Samples | Mixture, base: Pretrained | None) -> DataSizes:
    """The sizes of prepared data that the model depends on."""
    corpus = tasks[0].corpus
    return DataSizes(
        vocab_size=int(corpus.summary["vocab_size"]),
        pad_id=None if base else corpus.tokenizer.pad_id,  # which loads the tokenizer
        classes={task.name: len(task.corpus.labels.names) if task.corpus.labels else 0 for task in tasks},
        multi=corpus.labels is not None and corpus.labels.multi,
        tokens_per_sample=samples.tokens_per_sample,
    )


def require_figures(recipe: Recipe, tasks: Sequence[Task], own: Own) -> None:
    """Check that the run measures the metric that the recipe chooses, and that the user's code has an effect.

    Raises: RecipeError.
    """
    measured = {metric for task in tasks for metric in task.metrics()} | {"loss"}
    problems, known = list(own.problems(recipe, measured)), measured | {*own.metrics}
    if (wanted := recipe.evaluate.metric) not in known:
        answered = {metric for task in tasks for metric in _with_answers(task).metrics()}
        hint = "; evaluate.answers = 20 measures it on 20 answers" if wanted in answered else ""
        problems.append(f'evaluate.metric is "{wanted}"; this run knows {", ".join(sorted(known))}{hint}')
    if problems:
        raise RecipeError(problems)


def with_exercises(recipe: Recipe, tasks: Sequence[Task], context: int | None) -> tuple[Task, ...]:
    """The tasks with the problems of `evaluate.execute`, which leave room in a context of so many tokens.

    Raises: InputError if there are none, or one has no room.
    """
    execute = recipe.evaluate.execute
    if execute is None:
        return tuple(tasks)
    exercises, corpus = choose_exercises(Path(execute.path), execute.problems), tasks[0].corpus
    if context is not None:
        chat = corpus.chat if len(corpus.examples) else None
        require_room(exercises, encode_exercises(exercises, corpus.tokenizer, chat), context)
    return (replace(tasks[0], exercises=tuple(exercises)),)


def _with_answers(task: Task) -> Task:
    evaluate = task.recipe.evaluate.model_copy(update={"answers": 20})
    return replace(task, recipe=task.recipe.model_copy(update={"evaluate": evaluate}))


def require_short_prompts(recipe: Recipe, corpus: Corpus, context: int | None) -> None:
    """Check that `evaluate.prompts` leave room for an answer in a context of so many tokens.

    Raises: RecipeError.
    """
    if context is None:
        return
    chat = corpus.chat if len(corpus.examples) else None
    problems = [
        f"evaluate.prompts[{number}] has {len(ids):,} tokens, and the model's context of {context:,} "
        f"holds prompt and answer; expected at most {context - 1:,}; shorten the prompt"
        for number, ids in enumerate(encode_prompts(recipe.evaluate.prompts, corpus.tokenizer, chat))
        if len(ids) >= context
    ]
    if problems:
        raise RecipeError(problems)


def _with_ends_of(base: Pretrained | None, recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus whose answers may also end as the base ends its own.

    With another tokenizer than the base's an id may stand for another token, so only special ones are taken
    over.
    """
    ids = base.stop_ids if base else ()
    if recipe.tokenizer.from_ is not None:
        ids = tuple(token for token in ids if token in corpus.tokenizer.special_ids)
    return replace(corpus, end_ids=tuple(dict.fromkeys([*corpus.end_ids, *ids])))


def _lay_labels(corpus: Corpus, labels: Labels, base: Pretrained) -> tuple[Corpus, Pretrained]:
    """The corpus with its labels in the order of the base's classes, and the base with outputs for them."""
    theirs = base.label_names
    layout = lay_over(labels.names, theirs, are_named=theirs != default_names(len(theirs)))
    kinds = {True: "multi_label_classification", False: "single_label_classification"}
    if layout.kept and base.hf_config.get("problem_type") == kinds[not labels.multi]:
        was, now = ("one label", "several") if labels.multi else ("several labels", "one")
        layout = replace(
            layout, note=f"{layout.note}; ".lstrip("; ") + f"the model gave a text {was}, here {now}"
        )
    config = base.hf_config
    pad_id = corpus.tokenizer.choose_padding(config.get("pad_token_id"), int(config.get("vocab_size", 0)))
    return lay_out(corpus, layout), replace(
        base, labels=len(layout.names), kept_labels=layout.kept, hf_config={**config, "pad_token_id": pad_id}
    )
