"""A plan without data or weights: full rows, where those of a recipe are not on this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.bpe import train_tokenizer
from etude.data.corpus import Corpus
from etude.data.examples import Examples
from etude.data.labels import Labels
from etude.data.listing import missing_source
from etude.data.render import ChatTemplate
from etude.data.samples.hidden import Hidden, Masking
from etude.data.samples.labelled import Labelled
from etude.data.samples.pairs import Pairs
from etude.data.samples.sample import Ints, Samples, Spans
from etude.data.samples.texts import Documents
from etude.data.tokenize import Tokenizer
from etude.engine.device import choose_device
from etude.engine.precision import choose_precision
from etude.errors import InputError
from etude.models.catalogue import PRESETS
from etude.models.families.family import Pretrained
from etude.objectives.choose import choose_kind
from etude.objectives.task import Task
from etude.own import Own
from etude.plan import Plan, make_plan
from etude.plan.data import data_sizes, join_samples
from etude.plan.length import choose_length
from etude.plan.model import choose_model, count_adapter, find_base, measure_model
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe

_MOST_LABELLED = 10**8  # labels of rows take memory, as class weights count them
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def plan_without(recipe: Recipe, rows: int | None = None) -> tuple[Plan, list[str]]:
    """A plan that needs no weights, with the data of the recipe where they are here; and what was assumed.

    rows: training rows where the data are not here, each of train.seq_len tokens.

    Raises: InputError for what no plan is made of, and where the number of rows is not known.
    """
    base = find_base(recipe, Own(), needs_weights=False)
    if not (lacking := _find_lacking(recipe, base)):
        if rows is not None:
            wrong = "--rows is for a run, or for data that are not here, and those of the recipe are"
            raise InputError(f"{wrong}; leave it out, or give --from RUN")
        return make_plan(recipe, needs_weights=False), []
    plan = _assume(recipe, base, rows)
    rows_of = f"{len(plan.train):,} rows of {recipe.train.seq_len:,} tokens"
    return plan, [f"{lacking}, so {rows_of} are assumed"]


def _find_lacking(recipe: Recipe, base: Pretrained | None) -> str:
    """The first thing that data are prepared from and that is not on this machine; empty if all is."""
    if (path := missing_source(recipe)) is not None:
        return f"{path} is not here"
    if recipe.tokenizer.from_ is not None:
        return "" if Path(recipe.tokenizer.from_).exists() else f"{recipe.tokenizer.from_} is not here"
    if recipe.tokenizer.train_vocab_size is None and base is not None:
        is_there = any((base.path / name).is_file() for name in _TOKENIZER_FILES)
        return "" if is_there else f"no tokenizer of {recipe.model.from_} is here"
    return ""


def _assume(recipe: Recipe, base: Pretrained | None, rows: int | None) -> Plan:
    own, device = Own(), choose_device(recipe.train.device)
    tokenizer = train_tokenizer(("a",), 300, is_masked=True)
    count = rows or _count_rows(recipe)
    tasks = [
        _task(name, part, base, tokenizer, _vocabulary(recipe, base), count)
        for name, part in recipe.by_task().items()
    ]
    samples = join_samples(recipe, tasks)
    sizes = data_sizes(tasks, samples, base)
    if base is not None and (labels := sizes.classes.get("", 0)):
        padding = base.hf_config.get("pad_token_id") or 0
        base = replace(base, labels=labels, hf_config={**base.hf_config, "pad_token_id": padding})
    model = choose_model(recipe, base, sizes, own)
    size = measure_model(recipe, model, base, sizes, own=own, adapter=count_adapter(recipe, base))
    precision = choose_precision(recipe.train.precision, device, targets_per_step=1).name
    return Plan(
        recipe=recipe, tasks=tuple(tasks), train=samples, metric=ChosenMetric.parse(recipe.evaluate.metric),
        model=model, pretrained=base, device=device, precision=precision, **vars(size),
        **vars(choose_length(recipe, samples, device)),
    )  # fmt: skip


def _count_rows(recipe: Recipe) -> int:
    """The rows of one pass over so many steps. Raises: InputError if the recipe counts passes."""
    train = recipe.train
    if train.steps is None:
        raise InputError("how many rows there are is not known, as the data are not here; give --rows N")
    micro = train.micro_batch_size if isinstance(train.micro_batch_size, int) else 1
    return train.steps * (train.global_batch_size or micro * (train.accumulation or 1) * train.devices)


def _vocabulary(recipe: Recipe, base: Pretrained | None) -> int:
    """The rows of the embedding. Raises: InputError if nothing says how many there are."""
    if base is not None:
        text = base.hf_config.get("text_config") or base.hf_config
        return int(text.get("vocab_size") or 50_257)
    preset = PRESETS[recipe.model.preset]["vocab_size"] if recipe.model.preset else None
    known = recipe.model.vocab_size or preset or recipe.tokenizer.train_vocab_size
    if known is None:
        wrong = "the size of the vocabulary is not known, as the tokenizer is not here"
        raise InputError(f"{wrong}; set model.vocab_size")
    return int(known)


def _task(
    name: str, recipe: Recipe, base: Pretrained | None, tokenizer: Tokenizer, vocabulary: int, count: int
) -> Task:
    held_out = 0
    if recipe.data.validation != "none":
        held_out = max(round(count * recipe.data.validation_ratio), 1)
    labels = None
    if recipe.kind.has_labels:
        names = base.label_names if base else ()
        labels = Labels(names or ("0", "1"), multi=False)
    makes = {
        use: _samples(recipe, tokenizer, vocabulary, number, len(labels.names) if labels else 0)
        for use, number in (
            ("train", count),
            ("validation", held_out),
            ("test", held_out * bool(recipe.data.test)),
        )
    }
    corpus = Corpus(
        train=makes["train"], validation=makes["validation"] if held_out else None,
        test=makes["test"] if len(makes["test"]) else None, tokenizer=tokenizer, fingerprint="",
        summary={"vocab_size": vocabulary}, chat=ChatTemplate(tokenizer, None), end_ids=(tokenizer.eos_id,),
        labels=labels, examples_of={use: _no_examples(len(made)) for use, made in makes.items()},
    )  # fmt: skip
    return Task(name, recipe, corpus, choose_kind(recipe, corpus, Own()))


def _samples(recipe: Recipe, tokenizer: Tokenizer, vocabulary: int, count: int, labels: int) -> Samples:
    """`count` samples that are all one row of train.seq_len tokens, without memory for each."""
    kind, length = recipe.kind, recipe.train.seq_len
    target_len = (recipe.train.target_len or length) if "target_len" in kind.train_keys else 0
    spans = Spans(
        tokens=np.full(length + target_len, vocabulary - 1, dtype=np.int64),
        starts=_repeat(0, count), ends=_repeat(length + target_len, count), documents=count,
        targets=count * (1 if labels else target_len or length), bytes=0, truncated=0,
    )  # fmt: skip
    if labels:
        if count > _MOST_LABELLED:
            wrong = f"{count:,} rows with labels are more than the {_MOST_LABELLED:,} that can be assumed"
            raise InputError(f"{wrong}; give fewer --rows")
        classes = np.eye(labels, dtype=np.uint8)[np.arange(count) % labels]
        return Labelled(spans, length, classes, _repeat(length, count))
    if target_len:
        return Pairs(spans, length, target_len, _repeat(length, count))
    texts = Documents(spans, length, tokenizer.eos_id)
    if not kind.hides_tokens:
        return texts
    assert tokenizer.mask_id is not None
    masking = Masking(recipe.seed, recipe.train.mask_ratio, tokenizer.mask_id, vocabulary, ())
    return Hidden(texts, masking)


def _repeat(value: int, count: int) -> Ints:
    return np.broadcast_to(np.int64(value), (count,))


def _no_examples(count: int) -> Examples:
    def refuse(index: int) -> Any:
        raise IndexError(f"example {index} of assumed rows has no text")

    return Examples(count, refuse)
