"""From a TOML file and overrides to a checked recipe; every problem at once, each with its line."""

import copy
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from etude.durable import check_name, read_bytes, why_not_utf8
from etude.errors import InputError, RecipeError
from etude.recipe.rules import find_conflicts
from etude.recipe.schema import Recipe
from etude.text import shorten

_MAX_BYTES = 1 << 20
_MOST_LEVELS = 32  # of sections and lists within each other; a recipe has five
_MOST_PROBLEMS = 100
# Strings and comments of TOML. A string that nobody closed goes on to its end, so that each character is read
# once.
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.?|"(?!""))*+"{0,5}|"(?:[^"\\\n]|\\[^\n]?)*+"?'''
    r"""|'''(?:[^']|'(?!''))*+'{0,5}|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
_WORD = r"[A-Za-z0-9_-]+"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply overrides (`optim.learning_rate=2e-4`), check it; relative paths become
    absolute.

    Raises: InputError if there is no such file; RecipeError with every problem of its content.
    """
    check_name(path)
    path = Path(path)
    text = read_recipe_text(path)
    data = _parse(text, path.name)
    given = dict(_parse_override(override) for override in overrides)
    recipe = recipe_from(change(data, given), Locator(text, path.name, given))
    return _absolute(recipe, path.resolve().parent)


def read_recipe_text(path: Path) -> str:
    """The text of a recipe file. Raises: InputError if it cannot be read as one."""
    if not path.is_file():
        what = (
            "is a folder"
            if path.is_dir()
            else "does not exist"
            if not path.exists()
            else "is not a plain file"
        )
        raise InputError(f"recipe {path} {what}; give the path of a .toml file, or try `etude demo`")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"recipe {path} has over 1 MiB; a recipe is a short TOML file")
    content = read_bytes(path, most_bytes=_MAX_BYTES)
    if why := why_not_utf8(content):
        raise InputError(f"recipe {path} is not UTF-8 text: {why}; save it as UTF-8")
    return content.decode("utf-8-sig")


def recipe_from(data: dict[str, Any], locator: "Locator | None" = None) -> Recipe:
    """Check plain values against the schema and the rules. Raises: RecipeError with every problem."""
    locator = locator or Locator("", "recipe", {})
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        found: dict[tuple[str, ...], Any] = {}
        for problem in error.errors(include_url=False):
            # Of a key that may be a word or something else, what is wrong with the something else says more.
            keys = _keys(problem, data)
            if keys not in found or found[keys]["type"] == "literal_error":
                found[keys] = problem
        described = [_describe(keys, found[keys], locator) for keys in list(found)[:_MOST_PROBLEMS]]
        more = len(found) - len(described)
        raise RecipeError(
            [*described, *([f"{locator.file} has {more:,} more problems"] if more else [])]
        ) from None
    except RecursionError:
        raise RecipeError(
            [f"{locator.file}: values are nested too deeply; a recipe has three levels"]
        ) from None
    if conflicts := find_conflicts(recipe):
        raise RecipeError([f"{locator.name(tuple(keys.split('.')))} {text}" for keys, text in conflicts])
    return recipe


def change(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested values with dotted keys replaced; numbers index lists (`data.train.0.path`).

    Raises: RecipeError if a key leads through something that is no section.
    """
    data = copy.deepcopy(data)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place: Any = data
        for depth, part in enumerate(parents):
            if isinstance(place, list):
                place = place[_index(place, part, dotted)]
            else:
                place = place.setdefault(part, {})
            if not isinstance(place, dict | list):
                what = shorten(".".join(parents[: depth + 1]), 80)
                raise RecipeError([f"{shorten(dotted, 80)}: {what} is a value, not a section"])
        place[_index(place, last, dotted) if isinstance(place, list) else last] = value
    return dict(data)


def _index(values: list[Any], part: str, dotted: str) -> int:
    """The number that a part of a dotted key is. Raises: RecipeError if the list has no such entry."""
    if not (part.isdecimal() and len(part) < 9 and int(part) < len(values)):
        raise RecipeError(
            [f"{shorten(dotted, 80)}: there is no number {shorten(part, 20)} in a list of {len(values)}"]
        )
    return int(part)


def at_home(path: str) -> Path:
    """A path with the folder that `~` or `~user` stands for. Raises: InputError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: this machine has no home of such a user; give the whole path") from None


def recipe_hash(recipe: Recipe) -> str:
    """A hash (hex) that is equal for equal recipes, whatever the order and comments of the file."""
    return values_hash(recipe.to_dict())


def values_hash(values: dict[str, Any]) -> str:
    """The same hash of the plain values of a recipe, as its TOML file holds them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def diff(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values; None where a key is not set."""
    left, right = flatten(before.to_dict()), flatten(after.to_dict())
    keys = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in keys if left.get(name) != right.get(name)}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists of them as one dictionary with dotted keys."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    return {
        name: leaf
        for part, child in items
        for name, leaf in flatten(child, f"{prefix}.{part}".strip(".")).items()
    }


def to_toml(recipe: Recipe) -> str:
    """A recipe as TOML, defaults included."""
    import tomlkit

    return tomlkit.dumps(recipe.to_dict())


class Locator:
    """Finds the line of a key in the text of a recipe, for messages."""

    def __init__(self, text: str, file: str, overrides: dict[str, Any]) -> None:
        self.file = file
        self._overrides = overrides
        self._lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        counts: dict[tuple[str, ...], int] = {}
        depth = 0  # of brackets that an earlier line opened: what follows is no key
        for number, (line, masked) in enumerate(zip(text.split("\n"), _masked(text).split("\n")), 1):
            if depth == 0 and (header := re.match(r"\s*+\[(\[?)([^\]]*+)\]", masked)):
                table = ()
                *parents, last = _split_key(line[header.start(2) : header.end(2)])
                for part in parents:
                    table = (*table, part)
                    table += (str(counts[table]),) if table in counts else ()
                table = (*table, last)
                if header[1]:
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, str(counts[table]))
                for end in range(1, len(table) + 1):
                    self._lines.setdefault(table[:end], number)
            elif depth == 0 and "=" in masked:
                self._lines.setdefault(table + _split_key(line[: masked.index("=")]), number)
            depth += sum(masked.count(sign) for sign in "[{") - sum(masked.count(sign) for sign in "]}")

    def name(self, keys: tuple[str, ...]) -> str:
        """`optim.learning_rate (recipe.toml:31)`, or the nearest enclosing place that has a line."""
        dotted = ".".join(keys)
        shown = shorten(dotted, 80)
        if any(dotted == given or dotted.startswith(given + ".") for given in self._overrides):
            return f"{shown} (override)"
        for end in range(len(keys), 0, -1):
            if line := self._lines.get(keys[:end]):
                return f"{shown} ({self.file}:{line})"
        return f"{shown} ({self.file})"


def _parse(text: str, file: str) -> dict[str, Any]:
    if _levels(_masked(text)) > _MOST_LEVELS:
        raise RecipeError([f"{file}: not valid here: values are nested too deeply; a recipe has few levels"])
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r"\(at line (\d+), column \d+\)|\(at end of document\)", message)
        where = f"{file}:{place[1] if place and place[1] else text.count(chr(10)) + 1}"
        what = message[: place.start()].strip() if place else message
        if "overwrite" in what or "twice" in what:
            what += " (a key or section is given twice; keep one)"
        raise RecipeError([f"{where}: not valid TOML: {what}"]) from None
    except (RecursionError, ValueError) as error:
        what = "values are nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        raise RecipeError([f"{file}: not valid TOML: {what}"]) from None
    if not data:
        raise RecipeError([f"{file}: the recipe is empty; it needs at least `name` and one [[data.train]]"])
    return data


def _parse_override(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    name = name.strip().removeprefix("--")
    if not sign or not re.fullmatch(rf"{_WORD}(\.{_WORD}){{0,{_MOST_LEVELS}}}", name):
        raise RecipeError([
            f"override {shorten(repr(text), 80)} is not of the form key=value; write for example "
            "optim.learning_rate=2e-4"
        ])  # fmt: skip
    if any("\ud800" <= sign <= "\udfff" for sign in value):  # as which Python takes a byte that is no UTF-8
        raise RecipeError(
            [f"{name} (override) is {shorten(repr(value), 60)}, which is not UTF-8 text; give it in UTF-8"]
        )
    line = f"value = {value}"
    if "\n" in value or _levels(_masked(line)) > _MOST_LEVELS:
        return name, value
    try:
        return name, tomllib.loads(line)["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return name, value


def _masked(text: str) -> str:
    """TOML with each character of a string but its line ends as `s`, and without comments."""
    return _STRING.sub(lambda found: "" if found[0][0] == "#" else re.sub(r"[^\n]", "s", found[0]), text)


def _levels(masked: str) -> int:
    """How many brackets are open at once, or parts of one dotted key, at most; a quick look that parses
    nothing.
    """
    most = depth = 0
    for bracket in re.findall(r"[\[\]{}]", masked):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    dots = max(part.count(".") for part in re.split(r"[=,{}\[\]\n]", masked))
    return max(most, dots)


def _split_key(text: str) -> tuple[str, ...]:
    """The parts of a dotted key of TOML."""
    if re.fullmatch(r"[A-Za-z0-9_.\s-]+", text):
        return tuple(part.strip() for part in text.split("."))
    try:
        value, parts = tomllib.loads(f"{text.strip()} = 0"), []
    except ValueError:
        return (text,)
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)


def _describe(keys: tuple[str, ...], problem: Any, locator: Locator) -> str:
    """One pydantic problem as: where, what is wrong, what was expected, what to do."""
    where, kind, given = locator.name(keys), problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1][:100], known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where} is not a key of a recipe; {advice}"
    if kind == "missing":
        return f"{where} is missing; every recipe needs it, for example `{_example_line(keys)}`"
    expected = {
        "greater_than": "it must be above {gt}",
        "greater_than_equal": "it must be at least {ge}",
        "less_than": "it must be below {lt}",
        "less_than_equal": "it must be at most {le}",
        "finite_number": "it must be a finite number",
        "string_pattern_mismatch": (
            "it must be 1 to 64 lower case letters, digits, '.', '_' or '-', and start with a letter or digit"
        ),
        "literal_error": "it must be {expected}",
        "int_type": "it must be a whole number",
        "int_from_float": "it must be a whole number",
        "float_type": "it must be a number",
        "bool_type": "it must be true or false",
        "string_type": "it must be a text in quotes",
        "list_type": "it must be a list",
        "model_type": "it must be a [section]",
        "dict_type": "it must be a [section]",
        "too_short": "it needs at least {min_length} entry",
    }.get(kind)
    if expected is None:
        expected = problem["msg"][:1].lower() + problem["msg"][1:]
    else:
        bounds = {name: _bound(value) for name, value in problem.get("ctx", {}).items()}
        expected = expected.format(**bounds)
    field = _field(keys)
    advice = f"; try {_toml_value(field.examples[0])}" if field and field.examples else ""
    return f"{where} is {_toml_value(given)}; {expected}{advice}"


def _bound(value: Any) -> str:
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _keys(problem: Any, data: Any) -> tuple[str, ...]:
    """The keys that lead to a problem, without what pydantic adds for the members of a union."""
    keys: list[str] = []
    for part in problem["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]
            keys.append(str(part))
    is_missing = problem["type"] == "missing" or not keys
    return (*keys, str(problem["loc"][-1])) if is_missing and problem["loc"] else tuple(keys)


def _known_keys(section: tuple[str, ...]) -> list[str]:
    model = _section(section)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _section(keys: tuple[str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Recipe
    is_named = False  # what follows a section of sections is a name
    for part in keys:
        if part.isdecimal() or is_named:
            is_named = False
            continue
        info = model.model_fields.get(part) if model else None
        model = _model_within(info.annotation) if info else None
        is_named = info is not None and get_origin(info.annotation) is dict
    return model


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_within(part))), None)


def _field(keys: tuple[str, ...]) -> FieldInfo | None:
    model = _section(keys[:-1])
    fields = {info.alias or name: info for name, info in model.model_fields.items()} if model else {}
    return fields.get(keys[-1]) if keys else None


def _example_line(keys: tuple[str, ...]) -> str:
    if keys == ("data",) or keys == ("data", "train"):
        return '[[data.train]] path = "corpus.jsonl"'
    field = _field(keys)
    return f"{keys[-1]} = {_toml_value(field.examples[0] if field and field.examples else '...')}"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | list | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
        return text if len(text) <= 80 else text[:77] + "..."
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    def resolve(text: str | None) -> str | None:
        return None if text is None else str((folder / at_home(text)).absolute())

    data = recipe.to_dict()
    sections = [*data["data"]["train"], *data["data"]["test"]]
    if isinstance(data["data"].get("validation"), list):
        sections += data["data"]["validation"]
    leakage = data["data"]["leakage"]
    leakage["benchmarks"] = [resolve(path) for path in leakage["benchmarks"]]
    for section in sections:
        if "path" in section:
            section["path"] = resolve(section["path"])
    if "from" in data["tokenizer"]:
        data["tokenizer"]["from"] = resolve(data["tokenizer"]["from"])
    if _is_folder(data["model"].get("from"), folder):
        data["model"]["from"] = resolve(data["model"]["from"])
    return Recipe.model_validate(data)


def _is_folder(model: str | None, folder: Path) -> bool:
    """Whether model.from is meant as a path; anything else is the id of a model on a hub."""
    if model is None or "\0" in model:
        return False
    return model.startswith((".", "/", "~")) or (folder / model).is_dir()
