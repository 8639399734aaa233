"""`etude init`: a commented recipe, written after a look at the data, the model and the machine."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from etude.errors import InputError
from etude.text import plural

_LOOK_AT, _MOST_CHARACTERS = 2000, 8 << 20
_NAMED_COLUMNS = 20
_NO_MODEL = "not on this machine yet: a folder, or a hub id"
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
_BYTES_A_TOKEN = 3  # where there is no tokenizer to ask: English with code has 3 to 4
_RECIPE = """\
# {rows} ({format}); the usual one has {usual}, the longest {longest:,} ({counted}).
# For {device} with {memory} GB and {cores}; `etude check {file} --deep` says what it comes to.
name = {name}

[model]
from = {model}
# {size}

[adapter]                          # leave the section out to train all weights
rank = {rank:<4}                        # more can learn more, also by heart
alpha = {alpha}
targets = {targets}

[[data.train]]
path = {path}

{held_out}{clean}[train]
epochs = 3                         # of {per_epoch}
seq_len = {seq_len:<6}                   # {fit} of 100 rows fit; longer ones are cut, and counted
global_batch_size = {batch}
activation_checkpointing = {tight}   # true: less memory, a third more time

[optim]
learning_rate = 2e-4               # usual for LoRA; all weights want a tenth of it

[schedule]
warmup_steps = {warmup}

[evaluate]
every_steps = {every:<4}                 # half an epoch
patience = 3                       # so many without improvement end the run; the best is kept
answers = {answers:<4}                     # instructions answered each time, and judged
"""

_HELD_OUT = """\
[[data.validation]]                # {rows}; runs that hold out the same rows compare
path = {path}

"""

_CLEAN = """\
[data.clean]
undecodable = "drop"               # {files}, binary or not UTF-8; "off" refuses them

"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The data, the model and the machine that a recipe should fit.

    unread   columns of the rows that nothing reads
    tokens   of each of the first rows, ascending; `is_guess` if from bytes, for want of a tokenizer
    weights  parameters of the model, `context` its tokens; None if it is not there, and `problem` why
    left_out files of a folder that are no texts
    targets  layers that get an adapter
    memory   bytes
    """

    format: str
    rows: int
    unread: list[str]
    tokens: list[int]
    is_guess: bool
    weights: int | None
    context: int | None
    targets: str | list[str]
    problem: str | None
    left_out: list[str]
    device: str
    memory: int
    cores: int

    @property
    def usual(self) -> int:
        """Tokens of the row in the middle."""
        return self.tokens[len(self.tokens) // 2]


class Written(NamedTuple):
    """Facts and the recipe written by them: rows for a person as (name, value), plain values for JSON."""

    rows: list[tuple[str, str]]
    values: dict[str, Any]


def find_base(model: str, out: Path, runs: Path) -> str:
    """The checkpoint of a run as the recipe at `out` names it, if `model` is no model but names a run.

    Raises: InputError if the run trained an adapter.
    """
    from etude.models.hub import find_model
    from etude.models.lora import ADAPTER_FILE
    from etude.start import find_weights

    try:
        find_model(model)
        return model
    except InputError:
        try:
            folder = find_weights(model, runs).parent.absolute()
        except InputError:
            return model
    if (folder / ADAPTER_FILE).is_file():
        what = f"run {model} trained an adapter, which is no model by itself"
        raise InputError(f"{what}; give the folder that etude export {model} FOLDER --to merged writes")
    here = Path.cwd()
    is_beside = out.absolute().parent == here and folder.is_relative_to(here)
    return f"./{folder.relative_to(here)}" if is_beside else str(folder)


def write_recipe(data: Path, model: str, out: Path, validation: Path | None = None) -> Written:
    """Write a recipe for fine-tuning `model` on `data` to `out`.

    validation: rows to hold out, instead of a part of the data.

    Raises: InputError if the data cannot be read, or `out` is there already; nothing is written then.
    """
    import tomllib

    from etude import durable
    from etude.recipe.json_schema import SCHEMA_FILE, SCHEMA_LINE, may_write_schema, write_schema
    from etude.recipe.load import recipe_from
    from etude.records.folder import require_outside_runs

    require_outside_runs(out)
    if out.exists():
        raise InputError(f"{out} is there already; give another file with --out")
    facts = look(data, model)
    held_out = _hold_out(validation, out, facts) if validation else ""
    text, folder = recipe_text(data, model, out, facts, held_out), out.absolute().parent
    # Not into a folder that is trained on.
    has_schema = may_write_schema(folder) and not folder.is_relative_to(data.absolute())
    if has_schema:
        text = f"{SCHEMA_LINE}\n{text}"
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{str(data)!r} or {model!r} is not UTF-8, so no recipe can name it; rename it"
        ) from None
    recipe_from(tomllib.loads(text))  # what is written has no problem of its own
    durable.make_folder(folder)
    durable.write_file(out, content)
    if has_schema:
        write_schema(folder)
    schema = out.with_name(SCHEMA_FILE) if has_schema else None
    commands = _next_commands(out, model, facts)
    values = {
        "recipe": str(out), "schema": schema and str(schema), "next": commands, "data": str(data),
        "validation": validation and str(validation),
        "model": model, "problem": facts.problem, "rows": facts.rows, "format": facts.format,
        "unread_columns": facts.unread, "left_out": facts.left_out, "usual_tokens": facts.usual,
        "longest_tokens": facts.tokens[-1], "tokens_are_guessed": facts.is_guess,
        "parameters": facts.weights, "device": facts.device, "memory_bytes": facts.memory,
        "cores": facts.cores,
    }  # fmt: skip
    rows = [
        *_fact_rows(facts, validation),
        ("recipe", str(out)),
        *([("schema", f"{schema}, by which editors complete keys")] if schema else []),
        *zip(("next", "then"), commands),
    ]
    return Written(rows, values)


def _fact_rows(facts: Facts, validation: Path | None) -> Iterator[tuple[str, str]]:
    guess = ", guessed from bytes" if facts.is_guess else ""
    yield "data", f"{plural(facts.rows, 'row')}, {facts.format}"
    if validation:
        yield "held out", str(validation)
    if facts.unread:
        yield "not read", f"columns {', '.join(facts.unread)}"
    if facts.left_out:
        yield "left out", _describe_left_out(facts.left_out)
    yield "tokens a row", f"{facts.usual:,} the usual one, {facts.tokens[-1]:,} the longest{guess}"
    yield "model", f"{facts.weights:,} parameters" if facts.weights else f"not usable yet: {facts.problem}"
    yield "machine", f"{facts.device}, {facts.memory / 1e9:.0f} GB, {plural(facts.cores, 'core')}"


def _next_commands(out: Path, model: str, facts: Facts) -> list[str]:
    """Commands to go on with: first the one that fetches the model, if it is not there."""
    from etude.models.hub import fetch_command

    fetch = fetch_command(model) if facts.problem else None
    return [*([fetch] if fetch else []), f"etude check {out} --deep"]


def look(data: Path, model: str) -> Facts:
    """Look at data, model and machine. Raises: InputError if the data or the model cannot be used."""
    import psutil
    import torch

    from etude.engine.world import choose_device
    from etude.models.families.table import family_of
    from etude.models.hub import find_model
    from etude.models.parts import find_targets
    from etude.models.pretrained import inspect_model, meta_model
    from etude.records.environment import describe_machine

    problem, weights, context, folder = None, None, None, None
    targets: str | list[str] = _TARGETS
    try:
        folder = find_model(model)
    except InputError as error:
        problem = str(error)
    if folder is not None:
        pretrained = inspect_model(folder)
        if family_of(pretrained.config).has_source or pretrained.labels:
            raise InputError(
                f"{model} does not continue text, which the recipe would train; docs/seq2seq.md and "
                "docs/classification.md show recipes for other models"
            )
        weights, context = pretrained.parameters["total"], min(pretrained.config.longest, 2**24)
        try:
            find_targets(meta_model(pretrained), _TARGETS)
        except InputError:  # other families call them otherwise
            targets = "all-linear"
    kind, rows, texts, unread, left_out = _read(data)
    tokens, is_guess = _count_tokens(texts, folder)
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total
    return Facts(
        format=kind, rows=rows, unread=unread, tokens=tokens, is_guess=is_guess, weights=weights,
        context=context, targets=targets, problem=problem, left_out=left_out, device=device.type,
        memory=memory, cores=describe_machine()["cores"],
    )  # fmt: skip


def recipe_text(data: Path, model: str, out: Path, facts: Facts, held_out: str = "") -> str:
    """The recipe as TOML, its values chosen from what was found out; `held_out` is a section of its own."""
    batch = next((size for size in (32, 16, 8) if facts.rows >= 50 * size), 4)
    per_epoch = max(-(-facts.rows * (100 if held_out else 95) // 100 // batch), 1)
    most = facts.tokens[min(99 * len(facts.tokens) // 100, len(facts.tokens) - 1)]
    seq_len = min(max(-(-most // 64) * 64, 64), facts.context or 2**24)
    fit = 100 * sum(size <= seq_len for size in facts.tokens) // len(facts.tokens)
    rank = 16 if facts.rows >= 500 else 8
    given = f"{_name_of(model)}-{data.name.partition('.')[0]}".lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", given).strip("-._")[:64] or "my-run"
    # Frozen weights take 2 bytes each; where they fill a third of the memory, activations need care.
    is_tight = facts.weights is not None and 6 * facts.weights > facts.memory
    size = f"{facts.weights:,} parameters" if facts.weights else _NO_MODEL
    return _RECIPE.format(
        rows=plural(facts.rows, "row"), format=facts.format, usual=plural(facts.usual, "token"),
        longest=facts.tokens[-1], counted="guessed from bytes" if facts.is_guess else "counted",
        device=facts.device, cores=plural(facts.cores, "core"), memory=round(facts.memory / 1e9),
        file=_quoted(out.name)[1:-1], name=_quoted(name), model=_quoted(model), size=size,
        rank=rank, alpha=2 * rank, per_epoch=plural(per_epoch, "step"),
        path=_path_from(out, data), held_out=held_out,
        seq_len=seq_len, fit=fit, batch=batch, tight=str(is_tight).lower(),
        warmup=min(3 * per_epoch // 30, 100), every=max(per_epoch // 2, 1),
        clean=_CLEAN.format(files=plural(len(facts.left_out), "file")) if facts.left_out else "",
        answers=0 if facts.format == "text" else 8, targets=json.dumps(facts.targets),
    )  # fmt: skip


def _hold_out(validation: Path, out: Path, facts: Facts) -> str:
    """The section of the rows that are held out. Raises: InputError if they are of another format."""
    kind, rows, *_ = _read(validation)
    if kind != facts.format:
        raise InputError(
            f"{validation} has {kind} rows, and the data {facts.format} ones; give rows of one format"
        )
    return _HELD_OUT.format(rows=plural(rows, "row"), path=_path_from(out, validation))


def _path_from(out: Path, path: Path) -> str:
    """A path as the recipe in `out` names it."""
    here, path = out.absolute().parent, path.absolute()
    return _quoted(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _name_of(model: str) -> str:
    """The name of a model: of a checkpoint that of its run, since many have a step-000100."""
    from etude.records.store import Run

    run = Run(Path(model).absolute().parent.parent)
    with contextlib.suppress(InputError):
        return str(run.info["name"])
    return Path(model).name


def _describe_left_out(names: Sequence[str]) -> str:
    return f"{plural(len(names), 'file')}, binary or not UTF-8 text, such as {names[0]}"


def _read(data: Path) -> tuple[str, int, list[str], list[str], list[str]]:
    """Format, number and first texts of the rows, columns that are not read, files that are no texts."""
    from etude.data.layout import look_through
    from etude.data.sources import read_documents
    from etude.recipe.schema import Source

    texts: list[str] = []
    left_out: list[str] = []
    unread: dict[str, None] = {}
    rows, characters, source = 0, 0, Source(path=str(data.absolute()))
    for document in read_documents(source, undecodable=True):
        rows += not document.blank
        unread |= dict.fromkeys(document.unread[:_NAMED_COLUMNS])
        if document.is_undecodable and not document.line and data.is_dir():
            left_out.append(document.name)
        elif document.is_undecodable:
            what = f"{document.name} is binary or not UTF-8 text"
            raise InputError(f"{what}; convert it, or give a file or folder without such")
        if len(texts) < _LOOK_AT and characters < _MOST_CHARACTERS and not document.blank:
            texts.append(document.text[:_MOST_CHARACTERS])
            characters += len(document.text)
    return look_through(source).form.kind, rows, texts, list(unread)[:_NAMED_COLUMNS], left_out


def _count_tokens(texts: Sequence[str], folder: Path | None) -> tuple[list[int], bool]:
    """Tokens of each text, ascending, and whether they are guessed."""
    from etude.export import open_tokenizer

    with contextlib.suppress(InputError):
        if folder is not None:
            return sorted(len(ids) for ids in open_tokenizer(folder).encode_batch(list(texts))), False
    return sorted(len(text.encode()) // _BYTES_A_TOKEN + 1 for text in texts), True


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # plain in JSON, but not in TOML
