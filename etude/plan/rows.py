"""A plan as rows for people."""

from collections.abc import Iterator

from etude.data.corpus import label_notes
from etude.data.labels import listed
from etude.data.mixture import Mixture
from etude.data.page import list_notes
from etude.models.cost import trainable_line
from etude.plan import Plan
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
    return [*_base_rows(plan), *_data_rows(plan), *_work_rows(plan)]


def _base_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.pretrained is not None:
        yield "model", f"{plan.recipe.model.from_}: {plan.pretrained.reason or 'runs as a model of etude'}"
        yield "trained", trainable_line(plan.trainable, plan.parameters["total"])


def _data_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    totals = plan.train if isinstance(plan.train, Mixture) else plan.train.spans
    yield "training data", f"{plural(len(plan.train), 'sample')}, {plural(totals.targets, 'target')}"
    splits = [task.corpus.validation for task in plan.tasks if task.corpus.validation]
    samples, targets = sum(map(len, splits)), sum(split.spans.targets for split in splits)
    yield "validation data", f"{plural(samples, 'sample')}, {plural(targets, 'target')}" if splits else "none"
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


def _work_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Rows of the model's size, the steps, the computation and the device."""
    train, metric = plan.train, plan.recipe.evaluate.metric
    parts = ", ".join(
        f"{name} {count:,}" for name, count in plan.parameters.items() if name != "total" and count
    )
    samples = plan.steps * min(plan.global_batch_size, len(train))
    totals = train if isinstance(train, Mixture) else train.spans
    targets, tokens = samples * totals.scored / len(train), samples * train.tokens_per_sample
    yield "parameters", f"{plan.parameters['total']:,} ({parts})"
    steps = f"{plan.steps:,} of {plural(plan.global_batch_size, 'sample')}"
    yield "steps", f"{steps}; {plan.steps_per_epoch:,} an epoch"
    yield "passes over the data", f"{plan.steps / plan.steps_per_epoch:.2f}"
    yield "tokens", f"{round(tokens):,} in all, {round(targets):,} of them scored"
    yield "computation", f"{plan.cost.operations(tokens, targets):.2e} floating-point operations"
    if plan.is_validated and metric != "loss":
        way = "lower" if plan.metric.lower_is_better else "higher"
        yield "best checkpoint", f"by {metric}, {way} is better"
    yield "device", f"{plan.device.type}, {plan.precision}, {plural(plan.recipe.train.devices, 'rank')}"
    micro_batch = plan.micro_batch_size
    yield "micro-batch", plural(micro_batch, "sample") if micro_batch else "probed at the start"
    yield "checkpoint", f"{12 * plan.trainable / 1e6:,.1f} MB each"
