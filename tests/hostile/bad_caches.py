"""Prepared data and findings in `$ETUDE_CACHE` that no etude wrote, sealed as if one had."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from etude.data.prepared import prepare
from etude.recipe.load import recipe_from, to_toml
from etude.recipe.schema import Recipe
from tests.hostile.case import Case

Change = Callable[[Path], None]
HERE = {"ETUDE_CACHE": "cache"}  # in the folder of the case, of which nothing may change
RESEAL = r"error: prepared data [0-9a-f]{32} is damaged: .*; run etude prepare RECIPE --again$"


def write_recipe(folder: Path, **changes: Any) -> Recipe:
    """A recipe and its data, a few rows of text."""
    rows = "".join(json.dumps({"text": f"def f{n}(x):\n    return x + {n}\n"}) + "\n" for n in range(8))
    (folder / "rows.jsonl").write_text(rows)
    values: dict[str, Any] = {
        "name": "x", "tokenizer": {"train_vocab_size": 300},
        "data": {"train": [{"path": str(folder / "rows.jsonl")}]},
        "train": {"steps": 2, "seq_len": 16, "global_batch_size": 2},
    }  # fmt: skip
    recipe = recipe_from(values).with_changes(changes)
    (folder / "r.toml").write_text(to_toml(recipe))
    return recipe


def build(folder: Path, kind: str = "prepared", **changes: Any) -> Path:
    """The prepared data, or the findings, of such a recipe."""
    recipe = write_recipe(folder, **changes)
    with patch.dict(os.environ, ETUDE_CACHE=str(folder / "cache")):
        prepare(recipe)
    return next((folder / "cache" / kind).iterdir())


def seal(built: Path, **changes: Any) -> None:
    """Change what a manifest says, and seal it, and the files there, as etude does."""
    manifest: dict[str, Any] = json.loads((built / "manifest.json").read_text()) | changes
    manifest.pop("sha256")
    for name, entry in manifest["files"].items() if isinstance(manifest["files"], dict) else ():
        if (built / name).is_file() and not (built / name).is_symlink():
            content = (built / name).read_bytes()
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (built / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


def changed(change: Change, *words: str, kind: str = "prepared", **recipe: Any) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        change(build(folder, kind, **recipe))
        return ["prepare", "r.toml", *words]

    return make


def put(kind: str, name: str = "", target: str = "/dev/zero") -> Change:
    """A change that puts a link, a pipe, a file or a folder in a place of the cache; `name` may end that of KEY."""

    def change(built: Path) -> None:
        path = built.with_name(built.name + name) if not name or name.startswith(".") else built / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(target)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text("text")

    return change


def away(name: str) -> Change:
    """A change that removes the data, and has a link to a folder of the user, or to a file not there, in a place."""

    def change(built: Path) -> None:
        outside = built.parents[2] / "outside"
        outside.mkdir()
        (outside / "manifest.json").write_text("precious")
        shutil.rmtree(built)
        put("link", name, str(outside if name != ".lock" else outside / "new"))(built)

    return change


def linked_kind(built: Path) -> None:
    """The folder of all prepared data is a link."""
    built.parent.rename(built.parents[2] / "outside")
    built.parent.symlink_to(built.parents[2] / "outside")


def case(name: str, make: Callable[[Path], list[str]], says: str) -> Case:
    return Case(name=f"cache: {name}", make=make, says=says, environment=HERE)


LINKS = [
    case("the data are a link", changed(away("")), "is a link, where etude keeps a folder"),
    case("the data are a link, built anew", changed(away(""), "--again"), "is a link, where etude keeps a folder"),
    case("a file is in the place of the data", changed(put("file")), "is no folder, where etude keeps"),
    case("the lock is a link", changed(away(".lock")), "lock is no plain file"),
    case("the folder to be filled is a link", changed(away(".tmp")), "tmp is a link, where etude keeps a folder"),
    case("the folder to be filled is a file", changed(put("file", ".tmp"), "--again"), "tmp is no folder, where"),
    case("the lock is a pipe", changed(put("pipe", ".lock"), "--again"), "lock is no plain file"),
    case("the lock is a folder", changed(put("folder", ".lock"), "--again"), "lock is no plain file"),
    case("all prepared data are a link", changed(linked_kind), "prepared is a link, where etude keeps a folder"),
]  # fmt: skip


def naming(name: str) -> Change:
    def change(built: Path) -> None:
        file = built / f"given-{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content")
        seal(built, given=[name])

    return change


NAMES = [
    case(f"a file of the tokenizer is {name}", changed(naming(name)), RESEAL)
    for name in ("/tmp/etude-canary", "../canary", "a/b", "model.safetensors")
]

CASES = [*LINKS, *NAMES]
