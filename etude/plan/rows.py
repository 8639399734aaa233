"""A plan as rows for people."""

from collections.abc import Iterator
from typing import Any

from etude.data.corpus import label_notes
from etude.data.labels import listed
from etude.data.mixture import Mixture
from etude.data.page import list_notes
from etude.models.cost import trainable_line
from etude.plan import Plan
from etude.plan.values import plan_values
from etude.recipe.rates import advise_rate
from etude.recipe.settings import describe_idle
from etude.text import plural

_TURN_NOTES = {
    "answers_marked_not_to_learn": "answers are marked as not to be learnt, and are not scored",
    "developer_read_as_system": "rows have a developer turn, which the template writes as a system turn",
    "content_changed_by_template": (
        "rows have a turn whose content the template changes, as by leaving out thoughts"
    ),
}


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """The rows of a plan: (name, value)."""
    return [*_main_rows(plan), *_detail_rows(plan)]


def short_rows(plan: Plan) -> list[tuple[str, str]]:
    """The five rows of a plan that a run begins with."""
    rows = dict(_main_rows(plan))
    if any(_detail_rows(plan)):
        rows["data"] += "; notes on it: etude check --deep"
    return list(rows.items())


def plan_notes(plan: Plan) -> list[str]:
    """Sentences on what is not as a reader of the recipe may expect it."""
    return [f"{name}: {text}" if name else text for name, text in _detail_rows(plan)]


def _main_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    recipe, values = plan.recipe, plan_values(plan)
    yield "model", _describe_model(plan)
    held_out = _count(values, "validation") if plan.is_validated else "none"
    yield "data", f"{_count(values, 'train')}; validation {held_out}"
    passes = f"{plural(plan.steps_per_epoch, 'step')} an epoch, {plural(values['epochs'], 'epoch')}"
    read = f"{plural(values['tokens'], 'token')}, {plural(values['targets'], 'target')}"
    yield (
        "steps",
        f"{plural(plan.steps, 'step')} of {plural(plan.global_batch_size, 'sample')}, {passes}; {read}",
    )
    way = "lower" if plan.metric.lower_is_better else "higher"
    metric = "validation loss" if recipe.evaluate.metric == "loss" else recipe.evaluate.metric
    best = f"by {metric}, {way} is better"
    yield "best", best if plan.is_validated else "not known without validation data; the last is kept"
    if exercises := plan.tasks[0].exercises:
        yield "programs", _describe_programs(plan, len(exercises))
    micro_batch = plan.micro_batch_size
    size = f"micro-batches of {micro_batch:,}" if micro_batch else "micro-batches as large as fit"
    parallel = plan.parallel
    way = f"{plural(recipe.train.devices, 'rank')} ({parallel.kind}: {parallel.why})"
    ranks = f", {way}" if recipe.train.devices > 1 else ""
    yield "device", f"{plan.device.type}, {plan.precision}{ranks}, {size}"


def _describe_programs(plan: Plan, count: int) -> str:
    execute = plan.recipe.evaluate.execute
    assert execute is not None
    each = plural(execute.samples, "sample")
    room = plural(execute.max_tokens, "token")
    return (
        f"at each evaluation {each} for each of {plural(count, 'problem')}, of up to {room}, run in a sandbox"
    )


def _describe_model(plan: Plan) -> str:
    """The base and how it is run, and the parameters that are trained."""
    total, base = plan.parameters["total"], plan.pretrained
    is_whole = plan.trainable == total
    count = plural(total, "parameter") if is_whole else trainable_line(plan.trainable, total)
    if base is None:
        return f"{'your module' if plan.model is None else f'a new {plan.recipe.model.kind}'}, {count}"
    kind = next(iter(plan.recipe.by_task().values())).kind
    return f"{plan.recipe.model.from_}, {count}; {base.reason or f'trained with the {kind.model} of etude'}"


def _count(values: dict[str, Any], split: str) -> str:
    return f"{plural(values[f'{split}_samples'], 'sample')}, {plural(values[f'{split}_targets'], 'target')}"


def _detail_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Rows of what is not as a reader may expect it: of rate, tokenizer, tasks, labels and turns."""
    if advice := advise_rate(plan.recipe):
        yield "learning rate", advice
    yield from (("no effect", said) for said in describe_idle(plan.recipe))
    wanted, vocab_size = plan.recipe.tokenizer.train_vocab_size, plan.corpus.summary["vocab_size"]
    if wanted is not None and vocab_size < wanted:
        yield (
            "tokenizer",
            f"{vocab_size:,} tokens, all that the text gives, instead of the {wanted:,} asked for",
        )
    if isinstance(plan.train, Mixture):
        for name, count in zip(plan.train.parts, plan.train.counts):
            yield f"task {name}", f"{count:,} of {len(plan.train):,} samples an epoch"
    yield from _label_rows(plan)
    for task in plan.tasks:
        counts = task.corpus.summary.get("conversations") or {}
        for key, note in _TURN_NOTES.items():
            if counts.get(key):
                yield f"{task.name} conversations".strip(), f"{counts[key]:,} {note}"
    notes = dict.fromkeys(note for task in plan.tasks for note in list_notes(task.corpus.summary))
    yield from ((f"note {number}", note) for number, note in enumerate(notes, 1))


def _label_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    for task in plan.tasks:
        if labels := task.corpus.labels:
            per_row = "several or none a row" if labels.multi else "one a row"
            yield f"labels {task.name}".strip(), f"{len(labels.names):,}, {per_row}: {listed(labels.names)}"
            yield from (("", note) for note in label_notes(task.corpus))
