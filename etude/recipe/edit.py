"""Changes in the text of a recipe, which keep its order and its comments."""

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Item

from etude.recipe.toml import parse
from etude.text import one_line

_WIDTH = 110


def edit(text: str, changes: Mapping[str, Any], reasons: Mapping[str, str], header: str = "") -> str:
    """The text of a recipe with dotted keys set to values; numbers index lists (`data.train.0.path`).

    A key of value None is taken out. reasons: by key, told in a comment behind the value. header: lines of a
    comment above all.

    Raises: RecipeError if the text is no recipe.
    """
    parse(text, "recipe.toml")
    document = tomlkit.parse(text)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place: Any = document
        for part in parents:
            if not isinstance(place, list) and part not in place:
                place[part] = tomlkit.table()
            place = place[int(part)] if isinstance(place, list) else place[part]
        if value is None:
            place.pop(last, None)
            continue
        item: Item = tomlkit.item(value)
        if dotted in reasons:
            item.comment(one_line(reasons[dotted], _WIDTH))
        place[last] = item
    comment = "".join(f"# {one_line(line, _WIDTH)}\n" for line in header.splitlines())
    return comment + tomlkit.dumps(document)
