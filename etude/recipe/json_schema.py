"""The JSON Schema of recipes, and the line and file by which editors find it for a recipe."""

import json
import os
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.recipe.schema import Recipe

SCHEMA_FILE = "etude.schema.json"
# Read by taplo, and so by Even Better TOML: https://taplo.tamasfe.dev/configuration/directives.html
SCHEMA_LINE = f"#:schema ./{SCHEMA_FILE}"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME = "urn:etude:recipe"  # it stands at no address: nothing is fetched to know it
_MOST_BYTES = 1 << 20


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, with its dialect and a name of its own."""
    text = json.dumps(Recipe.model_json_schema(by_alias=True))
    # The anchors of patterns that every editor knows, instead of Python's.
    schema = json.loads(text.replace(r"\\A", "^").replace(r"\\z", "$"))
    return {"$schema": _DIALECT, "$id": _NAME, **schema}


def may_write_schema(folder: Path) -> bool:
    """True if the schema may be written beside a recipe: no file is there, or one that etude wrote."""
    path = folder / SCHEMA_FILE
    if not os.path.lexists(path):
        return True
    try:
        values = durable.read_json_object(path, most_bytes=_MOST_BYTES, follow=False)
    except InputError:
        return False
    return values.get("$id") == _NAME


def write_schema(folder: Path) -> None:
    """Write the schema into the folder of a recipe. Raises: StorageError."""
    durable.write_file(folder / SCHEMA_FILE, json.dumps(json_schema(), indent=1).encode())
