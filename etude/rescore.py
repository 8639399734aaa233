"""Runs, and models of folders, scored on one file of rows that none of them chose: `etude evaluate`.

Each is evaluated as its run evaluates it (`Kind.measure`), one sample a batch, so that rows can be compared:
every figure has its interval, and every difference is that over the same resamples of the rows.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from etude import durable
from etude.data.corpus import Corpus, choose_uses, lay_out
from etude.data.labels import lay_over, listed
from etude.data.prepared import prepare
from etude.data.stored import read_prepared
from etude.engine.device import choose_device
from etude.engine.precision import Precision, choose_precision, has_native_bf16
from etude.engine.world import World
from etude.errors import InputError
from etude.evaluate.exam import Exam
from etude.evaluate.generate import context_of
from etude.export import classifier_config, find_end_ids, find_folder, load_model, open_chat, stored_dtype
from etude.models.hf_config import default_names, label_names
from etude.objectives.choose import choose_kind
from etude.own import Own
from etude.recipe.data import Clean, Leakage
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Loss, Recipe
from etude.records.events import DataUsed
from etude.records.folder import step_of
from etude.records.store import Run
from etude.report.ranking import BY_BYTES, describe_lead
from etude.report.rescored import Interval, Rescored, System
from etude.report.wording import metric_title, scale_of, short, with_interval
from etude.scores.intervals import Difference, ratio_difference
from etude.text import one_line, plural, verb

_OF_LOSS = ("loss", "bits_per_byte")


def rescore(
    given: Sequence[str], file: Path, *, runs: Path = Path("runs"), answers: int | None = None
) -> Rescored:
    """Score RUN, RUN@last, RUN@step-200 or folders on a file of rows such as the first run trained on.

    answers: rows that are answered, where the model writes; by default as many as the first recipe says.

    Raises: InputError if there is no such model or file, rows do not fit, or the runs are of several kinds.
    """
    if not file.exists():
        raise InputError(f"{file} does not exist; give a file of rows such as the recipe's, to score on")
    folders = [find_folder(name, runs) for name in given]
    known = [_recipe_of(folder) for folder in folders]
    if not any(known):
        raise InputError(f"{given[0]} is a folder, which knows no recipe; name a run first, then the folder")
    first = next(recipe for recipe in known if recipe is not None)
    for name, recipe in zip(given, known):
        _require_same_kind(name, recipe or first, first)
    seq_len = max(recipe.train.seq_len for recipe in known if recipe is not None)
    count = max(r.evaluate.answers for r in known if r is not None) if answers is None else answers
    systems = [
        _score(name, folder, _recipe_on(recipe or first, file, folder, seq_len, count))
        for name, folder, recipe in zip(given, folders, known)
    ]
    return _compare(str(file), systems)


def _recipe_of(folder: Path) -> Recipe | None:
    """The recipe of the run of a checkpoint. Raises: InputError if it was made with the user's own code."""
    run = Run(folder.parent.parent)
    if folder.parent.name != "checkpoints" or not durable.is_plain(run.path / "run.json"):
        return None
    run.require_own_recipe()
    own = run.environment.get("own_code") or {}
    if own.keys() & {"model", "loss"}:
        raise InputError(f"run {run.name} has a model or loss of your own code; evaluate it from Python")
    if run.recipe.tasks:
        raise InputError(f"run {run.name} has several tasks; etude evaluate scores runs of a single one")
    return run.recipe


def _require_same_kind(name: str, recipe: Recipe, first: Recipe) -> None:
    kinds = recipe.train.objective, first.train.objective
    if kinds[0] != kinds[1]:
        raise InputError(f"{name} is trained for {kinds[0]} and the first for {kinds[1]}; score each alone")


def _recipe_on(recipe: Recipe, file: Path, folder: Path, seq_len: int, answers: int) -> Recipe:
    """A recipe whose only rows are those of a file, none of them filtered, held out or dropped."""
    source = recipe.data.train[0].model_copy(
        update={"path": str(file.absolute()), "source": None, "glob": None, "group_by": None}
    )
    data = {
        "train": [source], "validation": "none", "test": [], "clean": Clean(), "deduplicate": "off",
        "leakage": Leakage(), "too_long": "cut",
    }  # fmt: skip
    evaluate = {"answers": answers, "prompts": [], "max_samples": None}
    tokenizer = {"from_": str(folder), "train_vocab_size": None}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=data),
            "evaluate": recipe.evaluate.model_copy(update=evaluate),
            "tokenizer": recipe.tokenizer.model_copy(update=tokenizer),
            "train": recipe.train.model_copy(update={"seq_len": seq_len}),
            "loss": Loss(),
        }
    )


def _score(name: str, folder: Path, recipe: Recipe) -> System:
    run, device = Run(folder.parent.parent), choose_device("auto")
    is_run = durable.is_plain(run.path / "run.json")
    corpus = _open_rows(name, folder, recipe, run.day if is_run else None)
    precision = _precision(folder, device)
    objective = recipe.untold_objective
    model = load_model(folder, dtype=precision.dtype, objective=objective).to(device)
    context = context_of(model) if recipe.kind.writes_text else recipe.train.seq_len
    if recipe.train.seq_len > context:
        raise InputError(
            f"{name} reads {context:,} tokens, fewer than train.seq_len {recipe.train.seq_len:,}; "
            "score it alone"
        )
    measured = choose_kind(recipe, corpus, Own()).measure(_exam(model, corpus, recipe, precision, device))
    parts = measured.score.parts
    assert parts is not None and corpus.validation is not None
    return System(
        name="@".join([run.name, *name.split("@")[1:]]) if is_run else name,
        step=step_of(folder.name) if is_run else None,
        metric=recipe.evaluate.metric, figures=measured.with_intervals(), parts=parts,
        rows=corpus.validation.spans.documents,
        trained=_count_trained(run, recipe, corpus) if is_run else 0,
        cut=corpus.validation.spans.truncated, tokenizer=corpus.tokenizer.fingerprint,
        labels=corpus.labels.names if corpus.labels else (), measured=measured,
    )  # fmt: skip


def _open_rows(name: str, folder: Path, recipe: Recipe, day: str | None) -> Corpus:
    """The rows of the file as samples to validate on, their labels in the order of the model's.

    Raises: InputError if the file does not fit the recipe, or has labels that the model does not know.
    """
    try:
        corpus = prepare(recipe, tokenizer_folder=folder, today=day)
    except InputError as error:
        wrong, names_text, _ = str(error).partition(", which must be a string; ")
        if not names_text:
            raise
        # The advice is on a key of the recipe, which is that of a finished run here.
        raise InputError(f"{wrong} of text; give rows {_described_rows(name, folder)}") from None
    ids: dict[str, list[str]] = {}
    if recipe.kind.has_labels:
        assert corpus.labels
        config = classifier_config(folder)
        theirs = label_names(config) if config else ()
        layout = lay_over(corpus.labels.names, theirs, are_named=theirs != default_names(len(theirs)))
        new = [label for label in corpus.labels.names if label not in theirs]
        if len(layout.names) > len(theirs) or not layout.kept:
            raise InputError(
                f"the rows have the labels {listed(new)}, which {name} does not know: it knows "
                f"{listed(theirs)}; give rows with these"
            )
        corpus = _as_the_model_labels(name, lay_out(corpus, layout), str(config.get("problem_type")))
        _, prepared = read_prepared(recipe, Path(corpus.summary["folder"]))
        ids["validation"] = prepared.ids(np.arange(corpus.train.spans.documents))
    examples, ends = corpus.examples_of["train"], list(corpus.end_ids)
    if recipe.kind.writes_text:
        chat = open_chat(folder, system=recipe.data.system)
        ends += find_end_ids(folder, chat, is_chat=bool(len(examples)))
    return replace(
        corpus, validation=corpus.train, examples_of={"validation": examples}, ids=ids,
        end_ids=tuple(dict.fromkeys(ends)),
    )  # fmt: skip


def _described_rows(name: str, folder: Path) -> str:
    """The rows that a run trained on, by their fields."""
    run = Run(folder.parent.parent)
    used = [entry.event for entry in run.ledger().entries if isinstance(entry.event, DataUsed)]
    found = [str(source.get("found")) for each in used[:1] for source in each.summary.get("sources") or ()]
    return f"such as {name} was trained on: {one_line(found[0])}" if found else "such as the first run reads"


def _as_the_model_labels(name: str, corpus: Corpus, problem_type: str) -> Corpus:
    """The rows with one label each or several, as the model was trained, however few of them these rows have.

    Raises: InputError if rows have several labels, and the model gives one.
    """
    assert corpus.labels
    if corpus.labels.multi and problem_type == "single_label_classification":
        raise InputError(
            f"a row has no label or several, and {name} gives one; score it on rows of one label"
        )
    multi = corpus.labels.multi or problem_type == "multi_label_classification"
    return replace(corpus, labels=replace(corpus.labels, multi=multi))


def _count_trained(run: Run, recipe: Recipe, corpus: Corpus) -> int:
    """Rows of the file whose text is among the training rows of a run; 0 if its prepared data is gone."""
    used = [entry.event for entry in run.ledger().entries if isinstance(entry.event, DataUsed)]
    folder = Path(str(used[0].summary.get("folder"))) if used else Path()
    try:
        if folder.parent != durable.cache_folder("prepared"):
            return 0
        _, prepared = read_prepared(run.recipe, folder)
        uses, _ = choose_uses(run.recipe, prepared.arrays)
        _, mine = read_prepared(recipe, Path(corpus.summary["folder"]))
    except InputError:
        return 0
    known = {text.tobytes() for text in prepared.arrays["hashes"][uses == 0]}
    return sum(text.tobytes() in known for text in mine.arrays["hashes"])


def _precision(folder: Path, device: torch.device) -> Precision:
    """The dtype of the stored weights, where the device computes in it, else fp32."""
    halves = {torch.bfloat16: "bf16", torch.float16: "fp16"} if has_native_bf16(device) else {}
    return choose_precision(halves.get(stored_dtype(folder), "fp32"), device, targets_per_step=1)


def _exam(
    model: nn.Module, corpus: Corpus, recipe: Recipe, precision: Precision, device: torch.device
) -> Exam:
    return Exam(
        model=model, corpus=corpus, recipe=recipe, precision=precision, world=World(device),
        micro_batch_size=1, folder=Path(os.devnull), metric=ChosenMetric.parse(recipe.evaluate.metric),
        step=0, writes_text=recipe.kind.writes_text,
    )  # fmt: skip


def _compare(file: str, systems: list[System]) -> Rescored:
    first = systems[0]
    one_tokenizer = len({system.tokenizer for system in systems}) == 1
    has_bytes = all("bits_per_byte" in system.figures for system in systems)
    metric = ChosenMetric.parse(first.metric)
    figure = metric.name if all(metric.name in system.figures for system in systems) else "loss"
    if figure == "loss" and not one_tokenizer:
        figure = "bits_per_byte" if has_bytes else ""
    compared = [
        name for name in dict.fromkeys([*_OF_LOSS, figure]) if name and (one_tokenizer or name != "loss")
    ]
    differences = [
        {}
        if system is first
        else {name: gain for name in compared if (gain := _list(_differ(system, first, name)))}
        for system in systems
    ]
    winner, is_sure, sentences = _say_winner(systems, figure)
    if not one_tokenizer:
        sentences.append(BY_BYTES)
    sentences += [*_say_constant(systems), *_say_thresholds(systems), *_say_trained(systems)]
    answered = len(first.measured.predicted) if first.measured.figures else first.rows
    if answered < first.rows:
        sentences.append(f"Figures of answers are over {plural(answered, 'row')}; --answers changes that.")
    counts = {system.cut for system in systems}
    if counts == {first.cut} and first.cut:
        sentences.append(
            f"{first.cut:,} of {plural(first.rows, 'row')} {verb(first.cut, 'were')} cut at train.seq_len."
        )
    elif counts != {0}:
        cut = ", ".join(f"{system.name} {system.cut:,}" for system in systems)
        sentences.append(f"Rows cut at train.seq_len: {cut}.")
    return Rescored(
        file=file, systems=systems, figure=figure, differences=differences, winner=winner, is_sure=is_sure,
        sentences=sentences,
    )  # fmt: skip


def _say_constant(systems: list[System]) -> Iterator[str]:
    """Sentences on classifiers that say the same of all rows."""
    for system in systems:
        said = np.asarray(system.measured.predicted) if system.labels else np.zeros(0)
        if len(said) < 2 or len(np.unique(said, axis=0)) > 1:
            continue
        names = [system.labels[at] for at in (np.flatnonzero(said[0]) if said.ndim > 1 else said[:1])]
        labels = (
            f"the label{'s'[: len(names) != 1]} {', '.join(map(one_line, names))}" if names else "no label"
        )
        yield f"{system.name} predicts {labels} for all {len(said):,} rows."


def _say_thresholds(systems: list[System]) -> Iterator[str]:
    """A sentence on the thresholds of several labels a row, which are not those of a run's own scores."""
    if any(system.labels and np.asarray(system.measured.predicted).ndim > 1 for system in systems):
        yield (
            "A label is predicted from a threshold on that is chosen on other rows of this file; the scores "
            "in a run's report have thresholds of its validation rows, so they differ a little from these."
        )


def _say_trained(systems: list[System]) -> Iterator[str]:
    """Sentences on the systems that were trained on rows of the file, those of equal counts together."""
    for count in dict.fromkeys(system.trained for system in systems if system.trained):
        names = [system.name for system in systems if system.trained == count]
        who = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        were, their = ("was", "its") if len(names) == 1 else ("were", "their")
        rows = systems[0].rows
        of = "this row" if rows == 1 else f"{f'{count:,} of' if count < rows else 'all'} these {rows:,} rows"
        yield f"{who} {were} trained on {of}, so {their} figures are too good."


def _differ(a: System, b: System, name: str) -> Difference | None:
    """A figure of a less that of b over the same rows; None where their samples are others."""
    if name not in a.figures or name not in b.figures:
        return None
    if name in _OF_LOSS:
        is_paired = len(a.parts) == len(b.parts) and (a.tokenizer == b.tokenizer or len(a.parts) == a.rows)
        theirs, others = (each.measured.score.ratios()[name] for each in (a, b))
        return ratio_difference(theirs, others) if is_paired else None
    if a.measured.measure_of is None or (len(a.measured.predicted), a.labels) != (
        len(b.measured.predicted),
        b.labels,
    ):
        return None
    gain: Difference = a.measured.measure_of([], name).difference(a.measured.predicted, b.measured.predicted)
    return gain


def _say_winner(systems: list[System], figure: str) -> tuple[list[str], bool | None, list[str]]:
    if len(systems) == 1:
        (alone,) = systems
        if not figure:
            return [], None, []
        said = with_interval(*alone.figures[figure], rows=alone.rows)
        name = metric_title(figure).removeprefix("validation ")
        return [], None, [f"The {name} of {alone.name} is {said}{scale_of(figure)}."]
    if not figure:
        return [], None, ["Nothing compares: their tokenizers differ and do not tell bytes."]
    sign = ChosenMetric.parse(figure).sign
    best, *others = sorted(systems, key=lambda system: -sign * system.figures[figure][0])
    value = partial(_value, figure=figure)
    gains = [(other, _differ(best, other, figure)) for other in others]
    title = metric_title(figure).removeprefix("validation ")
    if any(gain is None for _, gain in gains):
        what = f"{best.name} is ahead: {title} {value(best)} beside {value(others[0])} of {others[0].name}"
        return [best.name], None, [f"{what}; the noise is not known, as their samples are not the same rows."]
    behind = [(other.name, value(other), gain) for other, gain in gains if gain is not None]
    names, is_sure, sentence = describe_lead(title, best.name, value(best), behind, "rows")
    return names, is_sure, [sentence]


def _value(system: System, figure: str) -> str:
    return short(system.figures[figure][0])


def _list(gain: Difference | None) -> Interval | None:
    return None if gain is None else [gain.value, gain.low, gain.high]
