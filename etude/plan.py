"""What a recipe comes to on this machine and this data, known before anything is trained or written."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from etude.data.corpus import Corpus, label_notes, lay_out
from etude.data.labels import Labels, lay_over, listed
from etude.data.loader import steps_per_epoch
from etude.data.mixture import Mixture, mix
from etude.data.page import list_notes
from etude.data.prepared import prepare
from etude.data.split import Split
from etude.engine.precision import choose_precision
from etude.engine.world import choose_device
from etude.errors import EtudeError, InputError, RecipeError
from etude.evaluate.answers import encode_prompts
from etude.models.build import Size, choose_config, longest_sample, measure
from etude.models.cost import Cost, trainable_line
from etude.models.decoder_config import DecoderConfig
from etude.models.hf_config import default_names
from etude.models.hub import Config, Pretrained, count_lora, find_model, inspect_model
from etude.objectives.choose import choose_kind
from etude.objectives.task import Task
from etude.own import Own
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe

# Enough rows to keep two to sixteen cores busy, few enough for their activations to stay near the caches.
_CPU_MICRO_BATCH_TOKENS = 4096
_OF_TURNS = {
    "answers_marked_not_to_learn": "answers are marked as not to be learnt, and are not scored",
    "developer_read_as_system": "rows have a developer turn, which the template writes as a system turn",
    "content_changed_by_template": (
        "rows have a turn whose content the template changes, as by leaving out thoughts"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with all that was found out: data, device, sizes and lengths. Counts are over all ranks.

    `model` is None where a family runs through transformers or the user brings a module of their own;
    `pretrained` is what model.from names. `trainable` of the parameters are updated.
    """

    recipe: Recipe
    tasks: tuple[Task, ...]
    train: Split | Mixture
    metric: ChosenMetric
    model: Config | None
    pretrained: Pretrained | None
    parameters: dict[str, int]
    trainable: int
    cost: Cost
    device: torch.device
    precision: str
    steps: int
    steps_per_epoch: int
    global_batch_size: int
    micro_batch_size: int | None

    @property
    def corpus(self) -> Corpus:
        """The data of the only task, or of the first; all have one tokenizer."""
        return self.tasks[0].corpus

    @property
    def is_validated(self) -> bool:
        """Whether there is a validation set, which then every task has."""
        return self.corpus.validation is not None

    @property
    def fingerprint(self) -> str:
        """What tells this data from any other."""
        if len(self.tasks) == 1:
            return self.corpus.fingerprint
        return hashlib.sha256(
            "".join(task.name + task.corpus.fingerprint for task in self.tasks).encode()
        ).hexdigest()

    @property
    def data_summary(self) -> dict[str, Any]:
        """What was prepared, in counts; of several tasks each under its name."""
        return {
            f"{task.name} {key}".strip(): value
            for task in self.tasks
            for key, value in task.corpus.summary.items()
        }

    def rows(self) -> list[tuple[str, str]]:
        """The plan for people: (what, how much)."""
        train, validations = (
            self.train,
            [task.corpus.validation for task in self.tasks if task.corpus.validation],
        )
        samples, targets_held = (
            sum(map(len, validations)),
            sum(validation.targets for validation in validations),
        )
        held_out = f"{samples:,} samples, {targets_held:,} targets" if validations else "none"
        parts = ", ".join(
            f"{name} {count:,}" for name, count in self.parameters.items() if name != "total" and count
        )
        micro = self.micro_batch_size or "probed at the start"
        samples_per_step = min(self.global_batch_size, len(train))
        targets = self.steps * samples_per_step * train.scored / len(train)
        tokens = self.steps * samples_per_step * train.tokens_per_sample
        rows = [
            ("training data", f"{len(train):,} samples, {train.targets:,} targets"),
            ("validation data", held_out),
            *self._vocabulary_rows(),
            *self._task_rows(),
            *self._label_rows(),
            *self._conversation_rows(),
            *self._notes(),
            ("parameters", f"{self.parameters['total']:,} ({parts})"),
            (
                "steps",
                f"{self.steps:,} of {self.global_batch_size:,} samples; {self.steps_per_epoch:,} an epoch",
            ),
            ("passes over the data", f"{self.steps / self.steps_per_epoch:.2f}"),
            ("tokens", f"{round(tokens):,} in all, {round(targets):,} of them scored"),
            ("computation", f"{self.cost.operations(tokens, targets):.2e} floating-point operations"),
            *self._judged_rows(),
            ("device", f"{self.device.type}, {self.precision}, {self.recipe.train.devices} rank(s)"),
            ("micro-batch", f"{micro} samples"),
            ("checkpoint", f"{12 * self.trainable / 1e6:,.1f} MB each"),
        ]
        if self.pretrained is not None:
            rows.insert(
                0,
                (
                    "model",
                    f"{self.recipe.model.from_}: {self.pretrained.reason or 'runs as a model of etude'}",
                ),
            )
            rows.insert(1, ("trained", trainable_line(self.trainable, self.parameters["total"])))
        return rows

    def _vocabulary_rows(self) -> Iterator[tuple[str, str]]:
        asked, there = self.recipe.tokenizer.train_vocab_size, self.corpus.summary["vocab_size"]
        if asked is not None and there < asked:
            yield (
                "tokenizer",
                f"{there:,} tokens, all that the text gives, instead of the {asked:,} asked for",
            )

    def _conversation_rows(self) -> Iterator[tuple[str, str]]:
        """What became of turns in another way than their rows have them."""
        for task in self.tasks:
            counts = task.corpus.summary.get("conversations") or {}
            for key, what in _OF_TURNS.items():
                if counts.get(key):
                    yield f"{task.name} conversations".strip(), f"{counts[key]:,} {what}"

    def _judged_rows(self) -> Iterator[tuple[str, str]]:
        metric = self.recipe.evaluate.metric
        if self.is_validated and metric != "loss":
            way = "lower" if self.metric.lower_is_better else "higher"
            yield "best checkpoint", f"by {metric}, {way} is better"

    def _notes(self) -> Iterator[tuple[str, str]]:
        notes = dict.fromkeys(note for task in self.tasks for note in list_notes(task.corpus.summary))
        yield from ((f"note {number}", note) for number, note in enumerate(notes, 1))

    def _task_rows(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.train, Mixture):
            for name, count in zip(self.train.parts, self.train.counts):
                yield f"task {name}", f"{count:,} of {len(self.train):,} samples an epoch"

    def _label_rows(self) -> Iterator[tuple[str, str]]:
        for task in self.tasks:
            if (labels := task.corpus.labels) is not None:
                each = "several or none a row" if labels.multi else "one a row"
                yield f"labels {task.name}".strip(), f"{len(labels.names):,}, {each}: {listed(labels.names)}"
                yield from (("", note) for note in label_notes(task.corpus))


def make_plan(recipe: Recipe, *, own: Own = Own(), today: str | None = None) -> Plan:  # noqa: B008 - frozen
    """Prepare the data and find out everything else. own: what the user brings beside the recipe; today: the
    day (YYYY-MM-DD) that a chat template may write.

    Raises: RecipeError with all that is wrong.
    """
    problems: list[str] = []
    own_model = own.model

    def attempt(find: Callable[[], Any]) -> Any:
        try:
            return find()
        except InputError as error:
            problems.append(str(error))
            return None

    device = attempt(lambda: choose_device(recipe.train.device))
    precision = device and attempt(
        lambda: choose_precision(recipe.train.precision, device, targets_per_step=1).name
    )
    pretrained: Pretrained | None = None
    if recipe.model.from_ is not None and own_model is None:
        given, revision = recipe.model.from_, recipe.model.revision
        objectives = [part.train.objective for part in recipe.by_task().values()]
        pretrained = attempt(lambda: inspect_model(find_model(given, revision), objectives[0]))
    tasks: list[Task] = []
    if pretrained is not None or recipe.model.from_ is None or own_model is not None:
        folder = pretrained.path if pretrained else None
        for name, part in recipe.by_task().items():
            if found := attempt(functools.partial(prepare, part, tokenizer_folder=folder, today=today)):
                data = _with_ends_of(pretrained, part, found)
                tasks.append(Task(name, part, data, choose_kind(part, data, own)))
    corpus = tasks[0].corpus if tasks and not problems else None
    if corpus is not None and pretrained is not None:
        rows, ids = int(pretrained.hf_config.get("vocab_size", 2**40)), int(corpus.summary["vocab_size"])
        if ids > rows:
            problems.append(
                f"the tokenizer has {ids:,} ids but {recipe.model.from_} embeds {rows:,}; "
                "use the tokenizer of the model: leave out tokenizer.from"
            )
    if corpus is not None and pretrained is not None:
        pretrained = replace(pretrained, labels=0)
    if corpus is not None and corpus.labels is not None and pretrained is not None and not recipe.tasks:
        corpus, pretrained = _lay_labels(corpus, corpus.labels, pretrained)
        tasks = [replace(tasks[0], corpus=corpus, kind=choose_kind(tasks[0].recipe, corpus, own))]
    if corpus is not None and pretrained is not None and pretrained.labels:
        said = pretrained.hf_config
        pad_id = corpus.tokenizer.choose_padding(said.get("pad_token_id"), int(said.get("vocab_size", 0)))
        pretrained = replace(pretrained, hf_config={**said, "pad_token_id": pad_id})
    adapter = 0
    if (
        recipe.adapter is not None
        and pretrained is not None
        and (corpus is not None or pretrained.config is not None)
    ):
        section = recipe.adapter
        adapter = (
            attempt(lambda: count_lora(pretrained, section.rank, section.targets, dora=section.dora)) or 0
        )
    model: Config | None = None
    if corpus is not None and own_model is None:
        tokenizer = corpus.tokenizer
        numbers = {task.name: len(task.corpus.labels.names) if task.corpus.labels else 0 for task in tasks}
        is_encoder = any(task.recipe.kind.model == "encoder" for task in tasks)
        labels = (
            None if corpus.labels is None else (numbers[""], corpus.labels.multi) if "" in numbers else None
        )
        heads = tuple(numbers.items()) if recipe.tasks and is_encoder else ()
        model = attempt(
            lambda: choose_config(
                recipe,
                pretrained,
                vocab_size=corpus.summary["vocab_size"],
                pad_id=None if pretrained else tokenizer.pad_id,  # which loads the tokenizer
                labels=labels,
                tasks=heads,
            )
        )
    if corpus is not None:
        problems += _long_prompts(recipe, tasks[0].corpus, model, pretrained)
        measured = {metric for task in tasks for metric in task.metrics()} | {"loss"}
        problems += own.problems(recipe, measured)
        known = measured | {*own.metrics}
        if recipe.evaluate.metric not in known:
            problems.append(
                f'evaluate.metric is "{recipe.evaluate.metric}"; this run knows {", ".join(sorted(known))}'
            )
    if problems or corpus is None:
        raise RecipeError(problems)
    train = recipe.train
    samples: Split | Mixture = corpus.train
    if recipe.tasks:
        ratios = {name: task.ratio for name, task in recipe.tasks.items()}
        samples = mix({task.name: task.corpus.train for task in tasks}, ratios)
    if own_model is not None:
        total = sum(parameter.numel() for parameter in own_model.parameters())
        size = Size({"own": total, "total": total}, total, Cost(6.0 * total, 0.0))
    else:
        length = min(train.seq_len, round(samples.tokens_per_sample) or 1)
        size = measure(model, pretrained, seq_len=length, adapter=adapter)
    micro = train.micro_batch_size
    if isinstance(micro, int) and train.accumulation is not None:
        global_batch_size = micro * train.accumulation * train.devices
    else:
        assert train.global_batch_size is not None
        global_batch_size = train.global_batch_size
    if micro == "auto" and device.type == "cpu":
        per_rank = global_batch_size // train.devices
        most = max(int(_CPU_MICRO_BATCH_TOKENS / samples.tokens_per_sample), 1)
        micro = max(size for size in range(1, min(most, per_rank) + 1) if per_rank % size == 0)
    per_epoch = steps_per_epoch(len(samples), global_batch_size)
    steps = train.steps or (train.epochs or 0) * per_epoch
    if recipe.schedule.warmup_steps >= steps:
        raise RecipeError(
            [
                f"schedule.warmup_steps is {recipe.schedule.warmup_steps} but this data gives {steps} steps "
                f"({train.epochs} x {per_epoch}); expected fewer; try {max(steps // 10, 1) - (steps <= 1)}, "
                "or more epochs"
            ]
        )
    return Plan(
        recipe=recipe,
        tasks=tuple(tasks),
        train=samples,
        metric=own.choose_metric(recipe.evaluate.metric),
        model=model,
        pretrained=pretrained,
        parameters=size.parameters,
        trainable=size.trainable,
        cost=size.cost,
        device=device,
        precision=precision,
        steps=steps,
        steps_per_epoch=per_epoch,
        global_batch_size=global_batch_size,
        micro_batch_size=micro if isinstance(micro, int) else None,
    )


def _long_prompts(
    recipe: Recipe, corpus: Corpus, model: Config | None, pretrained: Pretrained | None
) -> Iterator[str]:
    """What is wrong with `evaluate.prompts` that fill the context of a model of text."""
    context = 2**30
    if pretrained is not None:
        context = longest_sample(pretrained)
    elif isinstance(model, DecoderConfig):
        context = model.longest
    if context == 2**30:
        return
    chat = corpus.chat if len(corpus.examples) else None
    for number, ids in enumerate(encode_prompts(recipe.evaluate.prompts, corpus.tokenizer, chat)):
        if len(ids) >= context:
            yield (
                f"evaluate.prompts[{number}] has {len(ids):,} tokens, and the model's context of {context:,} "
                f"holds prompt and answer; expected at most {context - 1:,}; shorten the prompt"
            )


def _with_ends_of(pretrained: Pretrained | None, recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus whose answers may also end as the base ends its own.

    With another tokenizer than the base's an id may stand for another token, so only special ones are taken
    over.
    """
    ids = pretrained.stop_ids if pretrained else ()
    if recipe.tokenizer.from_ is not None:
        ids = tuple(each for each in ids if each in corpus.tokenizer.special_ids)
    return replace(corpus, end_ids=tuple(dict.fromkeys([*corpus.end_ids, *ids])))


def _lay_labels(corpus: Corpus, labels: Labels, pretrained: Pretrained) -> tuple[Corpus, Pretrained]:
    """The corpus with its labels in the order of the model's, and the model with the outputs that it then
    has.
    """
    theirs = pretrained.label_names
    layout = lay_over(labels.names, theirs, are_named=theirs != default_names(len(theirs)))
    kinds = {True: "multi_label_classification", False: "single_label_classification"}
    if layout.kept and pretrained.hf_config.get("problem_type") == kinds[not labels.multi]:
        was, now = ("one label", "several") if labels.multi else ("several labels", "one")
        layout = replace(
            layout, note=f"{layout.note}; ".lstrip("; ") + f"the model gave a text {was}, here {now}"
        )
    return lay_out(corpus, layout), replace(pretrained, labels=len(layout.names), kept_labels=layout.kept)


def probe_micro_batch_size(per_rank: int, try_step: Callable[[int], None]) -> int:
    """The largest divisor of a rank's samples whose step fits into the device's memory.

    `try_step(size)` runs one forward and backward pass. Raises: EtudeError if a single sample does not fit.
    """
    for size in (size for size in range(per_rank, 0, -1) if per_rank % size == 0):
        try:
            try_step(size)
            return size
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise EtudeError(
        "one sample does not fit into the device's memory; use activation_checkpointing, a shorter"
        " seq_len or a smaller model"
    )
