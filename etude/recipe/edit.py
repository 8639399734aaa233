"""Changes in the text of a recipe, which keep its order and its comments."""

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Array, Item

from etude.recipe.keys import recipe_keys
from etude.recipe.toml import parse
from etude.text import one_line

_WIDTH = 110


def edit(text: str, changes: Mapping[str, Any], reasons: Mapping[str, str], header: str = "") -> str:
    """The text of a recipe with dotted keys set to values; numbers index lists (`data.train.0.path`).

    The number after the last of a list adds an entry to it. A key of value None is taken out, and so is an
    entry of a list or a section by name. reasons: by key, told in a comment behind the value. header: lines
    of a comment above all.

    Raises: RecipeError if the text is no recipe; ValueError, TypeError or LookupError if it has no place for
    a key.
    """
    parse(text, "recipe.toml")
    document = tomlkit.parse(text)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place: Any = document
        for depth, part in enumerate(parents):
            if isinstance(place, list):
                place = _entry(place, int(part))
                continue
            if part not in place:
                place[part] = tomlkit.aot() if _is_list(parents[: depth + 1]) else tomlkit.table()
            place = place[part]
        if value is None and isinstance(place, list):
            del place[int(last)]
            continue
        if value is None:
            place.pop(last, None)
            continue
        item: Item = tomlkit.item(value)
        if dotted in reasons:
            item.comment(one_line(reasons[dotted], _WIDTH))
        place[last] = item
    comment = "".join(f"# {one_line(line, _WIDTH)}\n" for line in header.splitlines())
    return comment + tomlkit.dumps(document)


def _entry(entries: Any, number: int) -> Any:
    """An entry of a list of sections; the one after the last is made."""
    if number == len(entries):
        entries.append(tomlkit.inline_table() if isinstance(entries, Array) else tomlkit.table())
    return entries[number]


def _is_list(parts: list[str]) -> bool:
    """True if a recipe holds a list of sections there."""
    start = ".".join([*parts, "0", ""])
    return any(key.startswith(start) for key in recipe_keys())
