"""`etude init`: a commented recipe, written after a look at the data, the model and the machine."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etude.cli.draft import Facts, held_out_section, recipe_text
from etude.errors import InputError, RecipeError
from etude.text import command, plural

if TYPE_CHECKING:
    from etude.models.families.family import Pretrained
    from etude.plan import Plan

_LOOK_AT, _MOST_CHARACTERS = 2000, 8 << 20
_NAMED_COLUMNS = 20
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
_BYTES_A_TOKEN = 3  # where there is no tokenizer to ask: English with code has 3 to 4


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

    Raises: RecipeError with all problems of the data, the model and `out`; nothing is written then.
    """
    import tomllib

    from etude import durable
    from etude.recipe.json_schema import SCHEMA_FILE, SCHEMA_LINE, may_write_schema, write_schema
    from etude.recipe.load import recipe_from
    from etude.records.folder import require_outside_runs

    require_outside_runs(out)
    problems = [f"{out} is there already; give another file with --out"] if os.path.lexists(out) else []
    try:
        facts = look(data, model)
        held_out = _hold_out(validation, out, facts) if validation else ""
    except InputError as error:
        problems += error.problems if isinstance(error, RecipeError) else [str(error)]
    if problems:
        raise RecipeError(problems)
    text, folder = recipe_text(data, out, facts, held_out), out.absolute().parent
    if plan := _plan(text, data, validation, facts):
        text = recipe_text(data, out, facts, held_out, plan)
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
    return [*([fetch] if fetch else []), command("etude", "check", out, "--deep")]


def look(data: Path, model: str) -> Facts:
    """Look at data, model and machine. Raises: RecipeError if the data or the model cannot be used."""
    import psutil
    import torch

    from etude.engine.world import choose_device
    from etude.models.hub import find_model
    from etude.models.pretrained import inspect_model
    from etude.records.environment import describe_machine

    problems: list[str] = []
    problem, weights, context = None, None, None
    targets: str | list[str] = _TARGETS
    folder: Path | None = None
    try:
        folder = find_model(model)
    except InputError as error:
        problem = str(error)
    try:
        if folder is not None:
            pretrained = inspect_model(folder)
            targets = _choose_targets(model, pretrained)
            weights, context = pretrained.parameters["total"], min(pretrained.config.longest, 2**24)
    except InputError as error:
        problems.append(str(error))
    try:
        kind, rows, texts, unread, left_out = _read(data)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise RecipeError(problems)
    tokens, is_guess = _count_tokens(texts, folder)
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total
    return Facts(
        base=model, title=_name_of(model),
        format=kind, rows=rows, unread=unread, tokens=tokens, is_guess=is_guess, weights=weights,
        context=context, targets=targets, problem=problem, left_out=left_out, device=device.type,
        memory=memory, cores=describe_machine()["cores"],
    )  # fmt: skip


def _choose_targets(model: str, pretrained: "Pretrained") -> str | list[str]:
    """The layers that get an adapter. Raises: InputError if the model is not for text that goes on."""
    from etude.models.families.table import family_of
    from etude.models.parts import find_targets
    from etude.models.pretrained import meta_model

    if family_of(pretrained.config).has_source or pretrained.labels:
        raise InputError(
            f"{model} does not continue text, which the recipe would train; docs/seq2seq.md and "
            "docs/classification.md show recipes for other models"
        )
    try:
        find_targets(meta_model(pretrained), _TARGETS)
    except InputError:  # other families call them otherwise
        return "all-linear"
    return _TARGETS


def _plan(text: str, data: Path, validation: Path | None, facts: Facts) -> "Plan | None":
    """The plan of a recipe that is not written yet; None without its model, or if data or sizes stop it."""
    import tomllib

    from etude.plan import make_plan
    from etude.recipe.load import recipe_from

    if facts.weights is None:
        return None
    values = tomllib.loads(text)
    for use, path in (("train", data), ("validation", validation)):
        if path is not None:
            values["data"][use][0]["path"] = str(path.absolute())
    with contextlib.suppress(InputError):  # which etude check says, with the place in the file
        return make_plan(recipe_from(values))
    return None


def _hold_out(validation: Path, out: Path, facts: Facts) -> str:
    """The section of the rows that are held out. Raises: InputError if they are of another format."""
    kind, rows, *_ = _read(validation)
    if kind != facts.format:
        raise InputError(
            f"{validation} has {kind} rows, and the data {facts.format} ones; give rows of one format"
        )
    return held_out_section(rows, validation, out)


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
