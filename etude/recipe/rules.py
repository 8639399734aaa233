"""Rules across the keys of a recipe, which no single key can check."""

import difflib
import re
from collections.abc import Iterator
from typing import get_args

from etude.durable import check_name
from etude.errors import InputError
from etude.recipe.data import Data, Source
from etude.recipe.findings import FINDINGS
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.model_rules import find_model_conflicts
from etude.recipe.notify import find_channel_conflicts
from etude.recipe.schema import Kind, Recipe
from etude.recipe.section import is_address
from etude.text import parse_duration, shorten

_MOST_CRITERIA = 100
_LEAST_PATIENCE_SECONDS = 3.0  # ranks beat once a second


def find_conflicts(recipe: Recipe) -> list[tuple[str, str]]:
    """Every conflict as (dotted key to blame, what is wrong and what to do)."""
    rules = (
        _sources, _paths, _gate, _tasks, _tokenizer, find_model_conflicts, _length, _batch, _schedule,
        _device, _evaluate, _execute, _checkpoint, _watch, _criteria, _life,
        lambda each: find_channel_conflicts(each.notify),
    )  # fmt: skip
    return [conflict for rule in rules for conflict in rule(recipe)]


def _sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.data.validation == []:
        yield "data.validation", "is an empty list; give a source, or 'none' for a run without validation"
    for place, source in _each_source(recipe.data):
        yield from ((place, problem) for problem in _source(source))


def _each_source(data: Data) -> Iterator[tuple[str, Source]]:
    """Every source with its key, as `data.train.0`."""
    for use, sources in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        for index, source in enumerate(sources if isinstance(sources, list) else []):
            yield f"data.{use}.{index}", source


def _paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    named = {"model.from": recipe.model.from_, "tokenizer.from": recipe.tokenizer.from_}
    for place, source in _each_source(data):
        named |= {f"{place}.path": source.path, f"{place}.glob": source.glob}
    named |= {f"data.leakage.benchmarks.{index}": path for index, path in enumerate(data.leakage.benchmarks)}
    named["run.mirror"] = recipe.run.mirror
    if recipe.evaluate.execute is not None:
        named["evaluate.execute.path"] = recipe.evaluate.execute.path
    for key, path in named.items():
        try:
            check_name("." if path is None else path.strip())
        except InputError as error:
            yield key, f"names no file: {error}"


def _source(source: Source) -> Iterator[str]:
    if (source.path is None) == (source.source is None):
        yield 'needs either path or source, and not both; for example path = "corpus.jsonl"'
    if source.source is not None and source.glob is not None:
        yield "has both source and glob; glob chooses files of a folder given by path"
    if source.format is not None and (source.label or source.target):
        yield "has format beside label or target, which say what the rows hold; leave format out"


def _gate(recipe: Recipe) -> Iterator[tuple[str, str]]:
    clean = recipe.data.clean
    if clean.min_characters > clean.max_characters:
        yield (
            "data.clean.min_characters",
            f"is {clean.min_characters:,}, above max_characters {clean.max_characters:,}; no text is both",
        )


def _tasks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data, names = recipe.data, list(recipe.tasks)
    for place, source in _each_source(data):
        if source.task is None and names:
            yield place, f'has no task; say which it is for, as task = "{names[0]}"'
        elif source.task is not None and source.task not in names:
            known = f"there are {', '.join(names)}" if names else "the recipe has no [tasks.<name>]"
            yield f"{place}.task", f'is "{source.task}", but {known}'
    if names and recipe.train.objective != type(recipe.train).model_fields["objective"].default:
        yield "train.objective", "is given, but each of the tasks has its own; leave it out"
    if names and recipe.tokenizer.train_vocab_size is not None:
        yield (
            "tokenizer.train_vocab_size",
            "would be trained on one of the tasks; name a tokenizer with tokenizer.from",
        )
    if names and recipe.adapter is not None:
        yield "adapter", "is not for several tasks; leave it out, and all weights are trained"
    if len({TRAINING_KINDS[task.objective].model for task in recipe.tasks.values()}) > 1:
        yield (
            "tasks",
            "have seq2seq beside others, which no model here does at once; make two recipes of them",
        )
    for name, part in recipe.by_task().items():
        if name and not part.data.train:
            yield f"tasks.{name}", f'has no source; add a [[data.train]] with task = "{name}"'
        for use in ("validation", "test"):
            if (
                getattr(data, use)
                and isinstance(getattr(data, use), list)
                and name
                and not getattr(part.data, use)
            ):
                yield (
                    f"tasks.{name}",
                    f'has no {use} source, unlike others; add a [[data.{use}]] with task = "{name}"',
                )
        for key, problem in _objective(part):
            yield f"tasks.{name}.{key}" if name and key.startswith("loss") else key, problem


def _objective(recipe: Recipe) -> Iterator[tuple[str, str]]:
    kind = recipe.kind
    yield from _source_keys(recipe)
    if not kind.writes_text and (recipe.evaluate.answers or recipe.evaluate.prompts):
        yield (
            "evaluate",
            f"asks for generated text, which {kind.name} does not write; leave out answers and prompts",
        )
    if recipe.model.from_ is None and recipe.model.kind != kind.model:
        yield (
            "model.kind",
            f'is "{recipe.model.kind}", but train.objective = "{kind.name}" needs kind = "{kind.model}", or '
            "model.from",
        )
    if recipe.model.wants_code and kind.model == "encoder" and not kind.reads_code:
        yield "model.code_bias", 'is for train.objective = "classification"; leave it out'
    for other in TRAINING_KINDS.values():
        for name in other.train_keys if other != kind else ():
            if getattr(recipe.train, name) != type(recipe.train).model_fields[name].default:
                yield f"train.{name}", f'belongs to train.objective = "{other.name}"; leave it out'
    for name, field in type(recipe.loss).model_fields.items():
        if name not in kind.loss_keys and getattr(recipe.loss, name) != field.default:
            yield f"loss.{name}", f'has no meaning for train.objective = "{kind.name}"; leave it out'
    weights = recipe.loss.token_weights
    if len(weights) == len(get_args(Kind)) and not any(weights.values()):
        yield "loss.token_weights", "is 0 for every kind, so nothing would be learnt; give one of them more"


def _source_keys(recipe: Recipe) -> Iterator[tuple[str, str]]:
    kind, needed = recipe.kind, recipe.kind.needed_key
    for place, source in _each_source(recipe.data):
        if needed is not None and getattr(source, needed) is None:
            yield place, f'has no {needed}; name the JSONL field that holds it, as {needed} = "{needed}"'
        for other in TRAINING_KINDS.values():
            if other != kind and any(getattr(source, name) for name in other.source_keys):
                belong = "belong" if len(other.source_keys) > 1 else "belongs"
                names = " or ".join(other.source_keys)
                yield place, f'has {names}, which {belong} to train.objective = "{other.name}"'


def _tokenizer(recipe: Recipe) -> Iterator[tuple[str, str]]:
    given = (recipe.tokenizer.from_ is not None) + (recipe.tokenizer.train_vocab_size is not None)
    if given != 1 and not (given == 0 and recipe.model.from_):
        yield (
            "tokenizer",
            ("needs either from or train_vocab_size, and not both; for example train_vocab_size = 4096"),
        )
    elif recipe.tokenizer.train_vocab_size is not None and recipe.model.from_:
        yield "tokenizer.train_vocab_size", "makes ids that a pretrained model does not know; leave it out"
    elif recipe.tokenizer.train_vocab_size is not None and recipe.tokenizer.eos_token is not None:
        yield (
            "tokenizer.eos_token",
            "is for a given tokenizer; one that is trained has its own, so leave it out",
        )
    trained, rows = recipe.tokenizer.train_vocab_size, recipe.model.vocab_size
    if trained and rows and trained > rows:
        yield (
            "model.vocab_size",
            (
                f"is {rows} but the tokenizer has up to {trained} tokens; leave it out, or use at least "
                f"{trained}"
            ),
        )


def _length(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if (recipe.train.steps is None) == (recipe.train.epochs is None):
        yield "train", "needs either steps or epochs, and not both; for example epochs = 3"
    if recipe.train.steps and recipe.schedule.warmup_steps >= recipe.train.steps:
        yield (
            "schedule.warmup_steps",
            (
                f"is {recipe.schedule.warmup_steps} but the run has {recipe.train.steps} steps; "
                f"expected fewer; try "
                f"{max(recipe.train.steps // 10, 1) - (recipe.train.steps == 1)}, or raise train.steps"
            ),
        )


def _batch(recipe: Recipe) -> Iterator[tuple[str, str]]:
    train = recipe.train
    if train.global_batch_size is not None and train.accumulation is not None:
        yield "train.accumulation", "and global_batch_size say the same thing; keep one of them"
    if train.global_batch_size is None and train.accumulation is None:
        yield "train.global_batch_size", "is missing; say how many samples a step has, for example 32"
    if train.accumulation is not None and train.micro_batch_size == "auto":
        yield "train.micro_batch_size", "must be a number when accumulation is given; for example 8"
    if train.global_batch_size is None:
        return
    if train.global_batch_size % train.devices:
        yield (
            "train.global_batch_size",
            (
                f"is {train.global_batch_size}, which {train.devices} devices do not share evenly; "
                f"try {_next_multiple(train.global_batch_size, train.devices)}"
            ),
        )
    elif isinstance(train.micro_batch_size, int) and train.global_batch_size % (
        train.micro_batch_size * train.devices
    ):
        product = train.micro_batch_size * train.devices
        yield (
            "train.micro_batch_size",
            (
                f"is {train.micro_batch_size}, and {train.micro_batch_size} x {train.devices} devices does "
                f"not divide global_batch_size {train.global_batch_size}; try global_batch_size = "
                f'{_next_multiple(train.global_batch_size, product)}, or micro_batch_size = "auto"'
            ),
        )


def _schedule(recipe: Recipe) -> Iterator[tuple[str, str]]:
    schedule = recipe.schedule
    if schedule.kind != "wsd" and schedule.decay_ratio != type(schedule)().decay_ratio:
        yield "schedule.decay_ratio", f'has no meaning for kind = "{schedule.kind}"; it belongs to wsd'


def _device(recipe: Recipe) -> Iterator[tuple[str, str]]:
    train = recipe.train
    if train.devices > 1 and train.device == "mps":
        yield "train.devices", f"is {train.devices}, but a Mac has one mps device; use 1"
    if train.parallel == "shard":
        if train.devices == 1:
            yield "train.parallel", 'is "shard", but the run has one rank; use "auto", or --devices 2'
        if train.compile:
            yield "train.compile", 'does not go with train.parallel = "shard"; leave one of them out'
        if recipe.model.quantize:
            yield "model.quantize", 'does not go with train.parallel = "shard"; use "replicate"'
    if train.precision == "fp16" and train.device == "cpu" and train.compile:
        yield "train.precision", "fp16 with compile does not work on cpu; use fp32"


def _evaluate(recipe: Recipe) -> Iterator[tuple[str, str]]:
    evaluate = recipe.evaluate
    if evaluate.every_steps is not None and evaluate.every_epochs is not None:
        yield "evaluate.every_epochs", "and every_steps are both given; keep one of them"
    if recipe.data.validation == "none":
        if evaluate.patience is not None:
            yield (
                "evaluate.patience",
                'needs a validation set, but data.validation is "none"; leave one of them out',
            )
        if evaluate.execute is not None:
            yield (
                "evaluate.execute",
                'is measured at evaluations, and data.validation is "none"; leave one out',
            )
        if evaluate.metric != "loss":
            yield (
                "evaluate.metric",
                'needs a validation set, but data.validation is "none"; only loss is known then',
            )


def _execute(recipe: Recipe) -> Iterator[tuple[str, str]]:
    execute = recipe.evaluate.execute
    if execute is None:
        return
    if recipe.tasks or not recipe.kind.chats:
        yield (
            "evaluate.execute",
            'needs a model that goes on with text, of train.objective = "causal"; leave it out',
        )
    if max(execute.k) > execute.samples:
        yield (
            "evaluate.execute.k",
            f"has {max(execute.k)}, above the {execute.samples} samples of a problem; raise samples",
        )
    if execute.samples > 1 and execute.temperature == 0:
        yield (
            "evaluate.execute.temperature",
            "is 0, by which all samples of a problem are the same; leave it out, or samples = 1",
        )


def _checkpoint(recipe: Recipe) -> Iterator[tuple[str, str]]:
    checkpoint = recipe.checkpoint
    if checkpoint.every_steps is not None and checkpoint.every_minutes is not None:
        yield "checkpoint.every_minutes", "and every_steps are both given; keep one of them"
    for step in checkpoint.keep_at:
        if recipe.train.steps and step > recipe.train.steps:
            yield (
                "checkpoint.keep_at",
                f"names step {step} but the run has {recipe.train.steps} steps; leave it out",
            )


def _watch(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.watch.policy == "recover" and recipe.checkpoint.every_steps is None:
        yield "watch.policy", "goes back to checkpoints of known steps; give checkpoint.every_steps too"
    if unknown := next((kind for kind in recipe.watch.ignore if kind not in FINDINGS), None):
        near = difflib.get_close_matches(unknown[:100], FINDINGS, n=1)
        advice = f"did you mean {near[0]}?" if near else "docs/watch.md names all; for example plateau"
        yield "watch.ignore", f"names {shorten(unknown, 60)!r}, which is no kind of finding; {advice}"


def _criteria(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if len(recipe.criteria) > _MOST_CRITERIA:
        yield "criteria", f"has {len(recipe.criteria):,} of them; at most {_MOST_CRITERIA} can be judged"
        return
    for index, each in enumerate(recipe.criteria):
        others = [other for other in recipe.criteria[:index] if other.figure == each.figure]
        limits = [(each.above, other.below) for other in others] + [(o.above, each.below) for o in others]
        if (each.above is None) == (each.below is None):
            yield f"criteria.{index}", "needs above or below, and not both; for example below = 0.5"
        elif str(each) in map(str, recipe.criteria[:index]):
            yield f"criteria.{index}", "stands there twice; leave one out"
        elif any(above is not None and below is not None and above >= below for above, below in limits):
            yield f"criteria.{index}", "leaves nothing that another criterion of this figure allows"
        elif not each.figure.isprintable() or not each.figure.removeprefix("test:").strip():
            yield f"criteria.{index}.figure", "is no name of a figure; for example gap"


def _next_multiple(value: int, of: int) -> int:
    return -(-value // of) * of


def _life(recipe: Recipe) -> Iterator[tuple[str, str]]:
    mirror = recipe.run.mirror
    if mirror is None and recipe.run.mirror_data:
        yield "run.mirror_data", "is true without run.mirror; give the folder that is to hold the copy"
    elif is_address(mirror) and not re.fullmatch(r"[a-z][a-z0-9+.-]*://(?!.*::)[^\s@?#]+", mirror or ""):
        what = "give it as s3://bucket/folder, and the keys for it in the environment"
        yield "run.mirror", f"is not the plain address of a bucket and a folder in it; {what}"
    for key in ("lost_after", "hung_after"):
        if parse_duration(getattr(recipe.run, key)) < _LEAST_PATIENCE_SECONDS:
            yield (
                f"run.{key}",
                "is too short to tell a rank that works from one that is lost; give 3s or more",
            )
