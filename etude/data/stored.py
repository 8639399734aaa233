"""The folder of prepared data as prepared.py leaves it, checked while it is read."""

from pathlib import Path
from typing import Annotated

import numpy as np

from etude.data.cache import Built, open_built
from etude.data.listing import list_sources
from etude.data.samples.sample import Texts
from etude.data.samples.shape import Arrays, Prepared, Shape
from etude.data.samples.shapes import SHAPES, allowed_shapes
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import FILES
from etude.recipe.schema import Recipe
from etude.records import shape

MANIFEST = shape.Object(
    {
        "kind": Annotated[str, shape.one_of(*SHAPES)],
        "token_width_bytes": Annotated[int, shape.one_of(2, 4)],
        "vocab_size": Annotated[int, shape.at_least(1, 1 << 32)],
        "eos_token": str, "eos_id": int, "end_ids": list[int], "tokenizer": str, "unknown_tokens": int,
        "lost_bytes": int,
        "sources": [
            shape.Object(
                {
                    "name": str, "use": str, "found": str, "documents": int, "blank": int, "bytes": int,
                    "tokens": int,
                },
                {
                    "removed": int, "blank_rows": list[str], "unread_columns": list[str],
                    "cells_without_value": list[str], "special_tokens_read_as_text": int,
                    "such_as": list[str],
                    "files_of_rows_read_as_texts": int, "such_files": list[str],
                },
            )
        ],
        "contents": dict[str, str], "shared_groups": shape.Object({"count": int, "first": list[str]}),
        "given": list[Annotated[str, shape.one_of(*FILES)]],
        "labels": (shape.Object({"names": list[str], "multi": bool, "notes": list[str]}), None),
        "paths": list[str], "capabilities": list[str], "conversations": (dict[str, int | str], None),
    }
)  # fmt: skip


def read_prepared(recipe: Recipe, folder: Path) -> tuple[Shape, Prepared]:
    """The shape and content of a folder.

    Raises: InputError if a file, or a number in it, is not what prepared.py writes for such a recipe.
    """
    built = open_built(folder, MANIFEST)
    manifest, sources = built.manifest, list_sources(recipe)
    form = SHAPES[manifest["kind"]]
    if form not in allowed_shapes(recipe) or (form.has_labels != (manifest["labels"] is not None)):
        raise built.damaged(f"{form.name} are no data for train.objective {recipe.train.objective}")
    last_id = manifest["vocab_size"] - 1
    ends = [manifest["eos_id"], *manifest["end_ids"]]
    if len(ends) < 2 or max(ends) > last_id or len(manifest["sources"]) != len(sources):
        raise built.damaged("manifest.json names ids or sources that there are not")
    tokens = built.numbers("tokens.bin", f"<u{manifest['token_width_bytes']}", most=last_id)
    arrays = _read_arrays(built, len(tokens), len(sources))
    form.read(recipe, built, arrays)
    is_train = np.array([use == "train" for use, _ in sources])
    if not is_train[arrays["sources"]].any():
        raise built.damaged("no document is of data.train")
    # A loss says nothing of bytes that are left out, or that one token for all that is unknown stands for.
    is_lossy = manifest["lost_bytes"] or manifest["unknown_tokens"]
    each = arrays["token_bytes"] if len(arrays["token_bytes"]) and not is_lossy else None
    texts = Texts(tokens, arrays["offsets"], arrays["sizes"], each, manifest["eos_id"])
    given = {name: built.read(f"given-{name}") for name in manifest["given"]}
    try:
        tokenizer = Tokenizer(built.read("tokenizer.json").decode(), manifest["eos_token"], given)
    except UnicodeDecodeError:
        raise built.damaged("tokenizer.json is not UTF-8 text") from None
    return form, Prepared(built=built, arrays=arrays, texts=texts, tokenizer=tokenizer)


def _read_arrays(built: Built, tokens: int, sources: int) -> Arrays:
    """The columns that all shapes have; each index among them is one of something that is there."""
    arrays = {"offsets": built.offsets("offsets", None, tokens)}
    count, ids = len(arrays["offsets"]) - 1, built.manifest["vocab_size"]
    if not count:
        raise built.damaged("it holds no document")
    arrays["hashes"] = built.array("hashes", np.uint8, (count, 16))
    most = {"prompts": count - 1, "units": count - 1, "sizes": 1 << 40, "sources": sources - 1}
    for name, highest in most.items():
        arrays[name] = built.array(name, np.int64, (count,), most=highest)
    arrays["token_bytes"] = built.array("token_bytes", np.int64, (None,), most=1 << 40)
    if len(arrays["token_bytes"]) not in (0, ids):
        raise built.damaged(f"token_bytes.npy is of {len(arrays['token_bytes']):,} ids, not {ids:,}")
    return arrays
