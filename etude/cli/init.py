"""`etude init`: a commented recipe, written after a look at the data, the model and the machine."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etude.cli.draft import Facts, recipe_text
from etude.cli.look import look, read
from etude.errors import InputError, RecipeError
from etude.text import command, one_line, plural

if TYPE_CHECKING:
    from etude.plan import Plan


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


def write_recipe(
    data: Path, model: str, out: Path, validation: Path | None = None, given: Mapping[str, str] | None = None
) -> Written:
    """Write a recipe for fine-tuning `model` on `data` to `out`.

    validation: rows to hold out, instead of a part of the data. given: names of fields, by the key of a
    source that names them in a recipe.

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
        facts = look(data, model, given)
        held_out = _hold_out(validation, facts) if validation else None
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
        "validation": validation and str(validation), "model": model, **_fact_values(facts),
    }  # fmt: skip
    rows = [
        *_fact_rows(facts, validation),
        ("recipe", str(out)),
        *([("schema", f"{schema}, by which editors complete keys")] if schema else []),
        *zip(("next", "then"), commands),
    ]
    return Written(rows, values)


def _fact_values(facts: Facts) -> dict[str, Any]:
    labels = facts.labels.counts.items() if facts.labels else None
    return {
        "problem": facts.problem, "objective": facts.objective, "rows": facts.rows, "format": facts.format,
        "fields": dict(facts.fields.values), "guessed": sorted(facts.fields.guessed),
        "labels": labels and [{"label": name, "rows": rows} for name, rows in labels],
        "unread_columns": facts.unread, "left_out": facts.left_out, "usual_tokens": facts.usual,
        "longest_tokens": facts.tokens[-1], "tokens_are_guessed": facts.is_guess,
        "parameters": facts.weights, "device": facts.device, "memory_bytes": facts.memory,
        "cores": facts.cores,
    }  # fmt: skip


def _fact_rows(facts: Facts, validation: Path | None) -> Iterator[tuple[str, str]]:
    guess = ", guessed from bytes" if facts.is_guess else ""
    yield "data", f"{plural(facts.rows, 'row')}, {facts.format}"
    if validation:
        yield "held out", str(validation)
    if facts.fields.values:
        named = (
            f"{key} {name!r}{' (guessed by its name)' if key in facts.fields.guessed else ''}"
            for key, name in facts.fields.values.items()
        )
        yield "fields", one_line(", ".join(named))
    if facts.labels:
        yield "labels", str(facts.labels)
        yield from (("", note) for note in facts.labels.notes)
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
    values["data"]["leakage"] = {"action": "report"}  # a leak is for the check to refuse
    with contextlib.suppress(InputError):  # which etude check says, with the place in the file
        return make_plan(recipe_from(values))
    return None


def _hold_out(validation: Path, facts: Facts) -> tuple[int, Path]:
    """The number of rows that are held out, and their file. Raises: InputError for another format."""
    found = read(validation, facts.objective, facts.fields)
    if found.format != facts.format:
        raise InputError(
            f"{validation} has {found.format} rows, and the data {facts.format} ones; give rows of one format"
        )
    return found.rows, validation


def _describe_left_out(names: Sequence[str]) -> str:
    return f"{plural(len(names), 'file')}, binary or not UTF-8 text, such as {names[0]}"
