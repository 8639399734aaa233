"""Recipes on the page: differences, the schema as a form, problems by key as one types, and estimates."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import EtudeError, InputError, Problem, RecipeError
from etude.recipe.edit import edit
from etude.recipe.json_schema import json_schema
from etude.recipe.keys import recipe_keys
from etude.recipe.load import flatten, parse_recipe, to_toml, with_changes
from etude.recipe.rates import advise_rate
from etude.recipe.schema import Recipe
from etude.recipe.settings import describe_idle, is_default, shown_settings
from etude.recipe.toml import count_parts, parse
from etude.records.events import plain
from etude.records.store import Run
from etude.text import shorten
from etude.ui.programs import Program, Programs, SupersededError, problem_of
from etude.ui.trim import trim

FILE = "recipe.toml"  # as problems name the text that is typed
_RECIPE_BYTES = 1 << 20
_MOST_CHANGES, _MOST_ROWS = 200, 20
_EDITED_CHARACTERS, _EDITED_PARTS = 1 << 15, 4_000  # of a text that keeps its comments, which takes long
# The unit of a key by the end of its name.
_UNITS = {
    "steps": "steps", "epochs": "epochs", "bytes": "bytes", "characters": "characters", "tokens": "tokens",
    "len": "tokens", "minutes": "minutes", "samples": "samples", "ratio": "share",
    "patience": "evaluations", "devices": "devices", "accumulation": "micro-batches", "window": "tokens",
    "batch_size": "samples", "vocab_size": "tokens",
}  # fmt: skip
_PART = re.compile(r"\.\d+(?=\.|$)")


def run_recipe(run: Run, other: Run | None = None) -> dict[str, Any]:
    """The recipe of a run as it was given and with all values, beside the defaults or another run.

    `next` is the text for a run like it, wherever that is started.
    A value beside its default is `derived` where neither the recipe nor the command line set its key.
    Raises: InputError if one of them cannot be read.
    """
    if other is None:
        values = shown_settings(run.recipe).items()
        rows = [(key, value, _default(key)) for key, value in values if not is_default(key, value)]
    else:
        from etude.report.compare import differing_settings

        differing = differing_settings([run, other], is_seed_kept=True)
        rows = [(key, mine, theirs) for key, (mine, theirs) in differing.items()]
    is_set = _is_set_in(run)
    differences = [
        {
            "key": key,
            "value": value,
            "other": against,
            "why": why_of(key),
            "unit": unit_of(key),
            "derived": other is None and not is_set(key),
        }
        for key, value, against in rows
    ]
    return trim(plain({
        "toml": _text(run, "recipe.toml"), "resolved": _text(run, "resolved.toml"), "next": _for_next(run),
        "differences": differences,
        "against": other.name if other else "default",
        "sections": list(dict.fromkeys(each["key"].rpartition(".")[0] for each in differences)),
        "edited": _why_edited(run),
    }))  # fmt: skip


def _for_next(run: Run) -> str:
    """The text of the recipe with what the command line set, and with absolute paths."""
    text = _text(run, "recipe.toml") or ""
    values, said = flatten(run.recipe.to_dict()), _overrides(run)
    changes = {key: value if value == "auto" else values[key] for key, value in said.items() if key in values}
    for key, value in _given(text).items():
        if isinstance(found := values.get(key), str) and found.startswith("/") and found != value:
            changes[key] = found
    return _edit(text, changes, []) if changes else text


def _overrides(run: Run) -> dict[str, str]:
    """The changes on the command line of a run, by key."""
    command: Any = ()
    with contextlib.suppress(EtudeError):
        command = run.environment.get("command")
    words = [word for word in command or () if isinstance(word, str) and not word.startswith("-")]
    return {key: value for key, has, value in (word.partition("=") for word in words) if has}


def _is_set_in(run: Run) -> Callable[[str], bool]:
    """True for a key that the text of a recipe or an override of the command line sets, or a part of."""
    given = {*_given(_text(run, "recipe.toml") or ""), *_overrides(run)}
    starts = tuple(f"{key}." for key in given)
    return lambda key: key in given or key.startswith(starts)


def schema() -> dict[str, Any]:
    """The recipe's schema as the sections of a form, in the order of the file.

    kind is text, whole, number, flag, list, choice or section; a key may also hold one of `choices`. Keys of
    a list of sections are those of one entry (`is_list`), of named sections those of one name (`is_named`).
    """
    whole = json_schema()
    return {"sections": list(_sections(whole, whole, "", "")), "example": _EXAMPLE}


_EXAMPLE = """name = "my-run"

[tokenizer]
train_vocab_size = 4096            # or from = "a folder"

[[data.train]]
path = "corpus.jsonl"              # text, JSON Lines, CSV, or a folder of code; or source = "python-stdlib"

[train]
epochs = 1
global_batch_size = 32
"""


def check(text: str, folder: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Check the text of a recipe as `etude check` does, after changes by dotted key (None takes one out).

    folder: that its relative paths begin in. `given` are the values that the text sets, `values` those of the
    whole recipe once it has no problem.
    """
    require_short(text)
    problems: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    notes: list[str] = []
    if changes:
        text = _edit(text, changes, problems)
    given: dict[str, Any] = {}
    try:
        given = flatten(parse(text, FILE))
        recipe = parse_recipe(text, FILE, folder)
        values = flatten(recipe.to_dict())
        notes = [*filter(None, [advise_rate(recipe)]), *describe_idle(recipe)]
    except RecipeError as error:
        problems += [_place(each) for each in error.problems]
    except InputError as error:
        problems.append(_place(str(error)))
    checked = trim(plain({"problems": problems, "values": values, "given": given, "notes": notes}))
    return {**checked, "toml": text}


def estimate(programs: Programs, text: str, folder: Path) -> dict[str, Any]:
    """The size, time, memory and disk of a recipe as `etude estimate` tells them; of several the newest.

    `superseded` is true for one after which another was asked for. Raises: RecipeError if it has problems.
    """
    require_short(text)
    recipe = parse_recipe(text, FILE, folder)
    try:
        answer = _ask(programs.estimate, recipe, "estimate", FILE, "--quick")
    except SupersededError:
        return {"superseded": True}
    except EtudeError as error:
        return {"problem": str(error)}
    return trim({**answer, "superseded": False})


def preview(
    programs: Programs, text: str, folder: Path, rows: int = 3, given: "Given | None" = None
) -> dict[str, Any]:
    """The first samples of a recipe as they are trained on, as `etude data show` shows them.

    given: a file in place of the training data. Raises: RecipeError if the recipe has problems.
    """
    require_short(text)
    recipe = parse_recipe(text, FILE, folder)
    count = f"--rows={max(min(rows, _MOST_ROWS), 1)}"
    try:
        with given.source(folder) if given else contextlib.nullcontext() as path:
            if path is not None:
                recipe = _with_rows(recipe, path)
            return trim({"samples": _ask(programs.rows, recipe, "data", "show", FILE, count)})
    except SupersededError:
        return {"superseded": True}
    except EtudeError as error:
        return {"problem": str(error)}


@dataclass(frozen=True)
class Given:
    """A file of rows that is looked at: the text of one that was sent, or the path of one that is here."""

    name: str
    text: str | None = None

    @contextlib.contextmanager
    def source(self, folder: Path) -> Iterator[Path]:
        """Its path, which begins in a folder; a text is a file while the block runs.

        Raises: InputError, which names the file as it was given.
        """
        if self.text is None:
            yield folder / self.name
            return
        with durable.temporary_folder("etude-rows-") as place:
            kind = re.search(r"\.[A-Za-z0-9]{1,8}\Z", self.name)
            path = place / f"rows{kind[0].lower() if kind else '.txt'}"
            durable.write_file(path, self.text.encode("utf-8", "replace"))
            try:
                yield path
            except InputError as error:
                raise InputError(str(error).replace(str(path), shorten(self.name, 80))) from None


def _with_rows(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with a file for all its sources of training, read as the first of them is."""
    first = recipe.to_dict()["data"]["train"][0] if recipe.data.train else {}
    kept = {key: value for key, value in first.items() if key not in ("path", "source", "glob")}
    return with_changes(recipe, {"data.train": [{**kept, "path": str(path)}]})


def why_of(key: str) -> str | None:
    """The meaning of a key of the recipe."""
    field = recipe_keys().get(_PART.sub(".0", key))
    return field.description if field else None


def unit_of(key: str) -> str:
    """The unit of a key of the recipe; empty where it has none."""
    words = re.split(r"[._]", key)
    return _UNITS.get(words[-1]) or _UNITS.get("_".join(words[-2:]), "")


def require_short(text: str) -> None:
    """Check that a text is as short as a recipe may be. Raises: InputError."""
    if len(text.encode("utf-8", "surrogatepass")) > _RECIPE_BYTES:
        raise InputError("the recipe has over 1 MiB; a recipe is a short TOML file")


def _default(key: str) -> Any:
    field = recipe_keys().get(_PART.sub(".0", key))
    return (
        None if field is None or field.is_required() else plain(field.get_default(call_default_factory=True))
    )


def _text(run: Run, name: str) -> str | None:
    try:
        return durable.read_text(run.path / name, most_bytes=_RECIPE_BYTES, follow=False)
    except (EtudeError, ValueError):
        return None


def _why_edited(run: Run) -> str | None:
    try:
        run.require_own_recipe()
    except EtudeError as error:
        return str(error)
    return None


def _edit(text: str, changes: Mapping[str, Any], problems: list[dict[str, Any]]) -> str:
    if len(changes) > _MOST_CHANGES:
        raise InputError(f"{len(changes):,} changes at once; give at most {_MOST_CHANGES}")
    length = max(len(text), len(json.dumps(changes)))
    if length > _EDITED_CHARACTERS or count_parts(text) > _EDITED_PARTS:
        problems.append(_place("the text is too long to be changed by the form; change it by hand"))
        return text
    try:
        return edit(text, changes, {})
    except RecipeError as error:
        problems += [_place(each) for each in error.problems]
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        problems.append(_place("the text has no place for a key of the form; change it by hand"))
    return text


def _place(problem: str) -> dict[str, Any]:
    if isinstance(problem, Problem):
        return dict(problem.to_dict())
    return {"key": None, "line": None, "text": problem, "remedy": None}


def _given(text: str) -> dict[str, Any]:
    """The values that a text sets; none of one that is no recipe."""
    try:
        return flatten(parse(text, FILE))
    except RecipeError:
        return {}


def _ask(program: Program, recipe: Recipe, *words: str) -> Any:
    """The answer of a command about a recipe, whose paths are absolute. Raises: InputError."""
    with durable.temporary_folder("etude-recipe-") as folder:
        path = folder / FILE
        durable.write_file(path, to_toml(recipe).encode())
        code, answer = program.ask(*(str(path) if word == FILE else word for word in words))
    if code:
        raise InputError(problem_of(answer).replace(f"{folder}/", ""))
    return answer


def _sections(whole: Any, model: Any, name: str, why: str, form: str = "") -> Iterator[dict[str, Any]]:
    """The section of a model of the JSON Schema, then those within it."""
    inner: list[tuple[str, Any, str, str]] = []
    keys = []
    needed = model.get("required", ())
    for key, value in model["properties"].items():
        dotted = f"{name}.{key}" if name else key
        section, kind = _section_of(whole, value)
        if section is not None:
            inner.append((dotted, section, value.get("description") or section.get("description", ""), kind))
        if section is None or len(_variants(whole, value)) > 2:
            keys.append(_key(whole, key, dotted, value, is_needed=key in needed))
    yield {
        "name": name, "why": why or model.get("description", ""), "keys": keys,
        "is_list": form == "list", "is_named": form == "named",
    }  # fmt: skip
    for dotted, section, reason, kind in inner:
        yield from _sections(whole, section, dotted, reason, kind)


def _section_of(whole: Any, value: Any) -> tuple[Any, str]:
    """The section that a key holds, alone, in a list or by name, and which of these."""
    for each in _variants(whole, value):
        if "properties" in each:
            return each, ""
        named = next(iter(each.get("patternProperties", {}).values()), each.get("additionalProperties"))
        for held, form in ((each.get("items"), "list"), (named, "named")):
            if isinstance(held, dict) and "properties" in (found := _resolve(whole, held)):
                return found, form
    return None, ""


def _key(whole: Any, key: str, dotted: str, value: Any, *, is_needed: bool) -> dict[str, Any]:
    variants = _variants(whole, value)
    choices = [word for each in variants for word in _words(each)]
    free = [each for each in variants if not _words(each) and each.get("type") != "null"]
    first = free[0] if free else {}
    kind = _KINDS.get(first.get("type", ""), "choice" if choices else "text")
    more = ("exclusiveMinimum", "exclusiveMaximum")
    return {
        "key": dotted, "name": key, "kind": kind, "default": value.get("default"), "unit": unit_of(dotted),
        "why": value.get("description", ""), "choices": choices, "needed": is_needed,
        "least": first.get("minimum", first.get(more[0])), "most": first.get("maximum", first.get(more[1])),
        "above": more[0] in first, "below": more[1] in first, "pattern": first.get("pattern"),
        "optional": any(each.get("type") == "null" for each in variants),
        "example": next(iter(value.get("examples", ())), None),
    }  # fmt: skip


_KINDS = {
    "string": "text", "integer": "whole", "number": "number", "boolean": "flag", "array": "list",
    "object": "section",
}  # fmt: skip


def _words(variant: Any) -> list[Any]:
    return list(variant.get("enum", [variant["const"]] if "const" in variant else []))


def _variants(whole: Any, value: Any) -> list[Any]:
    """The kinds of value that a key may hold, each without references."""
    return [_resolve(whole, each) for each in value.get("anyOf") or value.get("allOf") or [value]]


def _resolve(whole: Any, value: Any) -> Any:
    name = value.get("$ref", "").rpartition("/")[2]
    return {**whole["$defs"][name], **{k: v for k, v in value.items() if k != "$ref"}} if name else value
