"""Prepared data and findings in `$ETUDE_CACHE` that no etude wrote, sealed as if one had."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from etude.data.cache import to_npy
from etude.data.prepared import prepare
from etude.recipe.load import recipe_from, to_toml, with_changes
from etude.recipe.schema import Recipe
from tests.bases import write_t5
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
    recipe = with_changes(recipe_from(values), changes)
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
        if isinstance(entry, dict) and (built / name).is_file() and not (built / name).is_symlink():
            content = (built / name).read_bytes()
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (built / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


def changed(
    change: Change, *words: str, kind: str = "prepared", **recipe: Any
) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        change(build(folder, kind, **recipe))
        return ["prepare", "r.toml", *words]

    return make


def put(kind: str, name: str = "", target: str = "/dev/zero") -> Change:
    """A change that puts a link, a pipe, a file or a folder in a place of the cache; `name` may end that of
    KEY.
    """

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
    """A change that removes the data, and has a link to a folder of the user, or to a file not there, in a
    place.
    """

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


def saying(**changes: Any) -> Change:
    """A change of what the manifest says."""
    return lambda built: seal(built, **changes)


def holding(file: str, content: bytes) -> Change:
    def change(built: Path) -> None:
        (built / file).write_bytes(content)
        seal(built)

    return change


def numbers(name: str, values: Any, dtype: Any = np.int64) -> Change:
    return holding(f"{name}.npy", to_npy(np.array(values, dtype=dtype)))


def unlisted(kind: str, file: str) -> Change:
    """A change that puts something in the place of a file that the manifest then does not name."""

    def change(built: Path) -> None:
        put(kind, file)(built)
        manifest = json.loads((built / "manifest.json").read_text())
        manifest["files"].pop(file, None)
        seal(built, files=manifest["files"], given=["merges.txt"] if file.startswith("given") else [])

    return change


def without_sources(folder: Path) -> list[str]:
    """Pairs whose sources have no token, sealed."""
    write_t5(folder / "base")
    rows = [{"text": f"q {n}", "target": f"a {n}"} for n in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(folder / "rows.jsonl"), "target": "target"}
    train = {"objective": "seq2seq", "steps": 1, "seq_len": 16, "target_len": 16, "global_batch_size": 1}
    values = {
        "name": "x",
        "model": {"from": str(folder / "base")},
        "data": {"train": [source]},
        "train": train,
    }
    recipe = recipe_from(values)
    (folder / "r.toml").write_text(to_toml(recipe))
    with patch.dict(os.environ, ETUDE_CACHE=str(folder / "cache")):
        prepare(recipe, tokenizer_folder=folder / "base")
    numbers("seconds", [0] * 12)(next((folder / "cache/prepared").iterdir()))
    return ["prepare", "r.toml"]


def is_zero(built: Path) -> None:
    """A file of many zeros, sealed: it takes no room on the disk."""
    with (built / "offsets.npy").open("r+b") as file:
        file.truncate(200 << 20)
    seal(built)


def deep(built: Path) -> None:
    (built / "manifest.json").write_text('{"files":' + "[" * 100_000)


FILES = ("manifest.json", "tokens.bin", "offsets.npy", "tokenizer.json")
DOORS = [
    *(case(f"{file} is a {kind}", changed(put(kind, file)), RESEAL)
      for file in FILES for kind in ("pipe", "link", "folder")),
    *(case(f"{file} is a {kind} that no manifest names", changed(unlisted(kind, file)), RESEAL)
      for file in ("tokens.bin", "given-merges.txt", "sizes.npy") for kind in ("pipe", "link")),
    case("a file is longer than its numbers", changed(is_zero), RESEAL),
    case("the manifest is nested deeply", changed(deep), RESEAL),
]  # fmt: skip
LAST = 2**62
SAID: dict[str, list[Any]] = {
    "given": [3, None, [3], {"a": 1}], "kind": ["zzz", None, "pairs", "labelled"],
    "token_width_bytes": [3, 4, "2", 0], "eos_id": [10**9, "a", -1], "eos_token": [None, 3],
    "shared_groups": [{}, 3, {"count": "a", "first": []}, {"count": 1, "first": 3}], "paths": [3, [3]],
    "sources": [None, [], [3], [{}]], "end_ids": [["a"], [10**9], 3, []], "labels": [{"a": 1}, 3],
    "capabilities": [[3], 3], "tokenizer": [None, 3], "vocab_size": ["a", 0, 5, 10**12, 301],
    "conversations": [[], 3], "contents": [3, {"a": 1}],
    "files": [{}, 3, {"tokens.bin": 3}, {"../r.toml": {"size": 3, "sha256": "a"}}],
    "unknown_tokens": ["a", -1], "lost_bytes": [None],
}  # fmt: skip
ARRAYS: list[tuple[str, Any, Any]] = [
    ("offsets", [0, 10**15], np.int64), ("offsets", [0], np.int64), ("offsets", [], np.int64),
    ("offsets", ["a"], np.str_), ("offsets", 3, np.int64), ("hashes", np.zeros(3), np.float64),
    ("hashes", np.zeros((8, 3)), np.uint8), ("sources", [10**9] * 8, np.int64),
    ("sources", [-1] * 8, np.int64), ("units", [-5], np.int64), ("units", [LAST] * 8, np.int64),
    ("sizes", [-1] * 8, np.int64), ("sizes", np.full(8, np.nan), np.float64), ("prompts", [8] * 8, np.int64),
    ("token_bytes", [1, 2], np.int64), ("sources", np.zeros(8), ">i8"),
]  # fmt: skip
SEALED = [
    *(case(f"the manifest says {name} = {json.dumps(value)[:50]}", changed(saying(**{name: value})), RESEAL)
      for name, values in SAID.items() for value in values),
    *(case(f"{name}.npy is {str(values)[:20]!r} {np.dtype(dtype)}", changed(numbers(name, values, dtype)), RESEAL)
      for name, values, dtype in ARRAYS),
    case("tokens.bin is of ids that there are not", changed(holding("tokens.bin", b"\xff" * 64)), RESEAL),
    case("tokens.bin is empty", changed(holding("tokens.bin", b"")), RESEAL),
    case("tokens.bin is of half an id", changed(holding("tokens.bin", b"\0" * 63)), RESEAL),
    case("sources of pairs have no token", without_sources, RESEAL),
    case("units.npy is empty", changed(holding("units.npy", b"")), RESEAL),
    case("units.npy is a pickle", changed(holding("units.npy", b"\x80\x04K\x01.")), RESEAL),
]  # fmt: skip
DUPLICATES = {"data.deduplicate": "near"}
GATE_SAID: dict[str, list[Any]] = {
    "documents": [3, "a", 10**15], "paths": [3, [], ["/a", "b"]], "benchmarks": [3, [{}]], "blank": [3],
    "examples": [3, {"a": [3]}, {"a": [[1]]}, {"a": [[10**9, "b"]]}], "undecodable": [{}, [3]],
    "files": [{}, 3],
}  # fmt: skip
GATE_ARRAYS: list[tuple[str, Any]] = [
    ("failed", [1 << 40] * 8), ("same_as", [8] * 8), ("leaks", [[0, 10**9]]), ("leaks", [3]),
    ("planted", [[0, 0, 0]]), ("places", [[3, 0, 0]] * 8), ("places", [[0, 9, 0]] * 8),
    ("similarity", [1] * 8),
]  # fmt: skip
GATE = [
    *(case(f"the gate's manifest says {name} = {json.dumps(value)[:50]}",
           changed(saying(**{name: value}), kind="gate", **DUPLICATES), RESEAL)
      for name, values in GATE_SAID.items() for value in values),
    *(case(f"the gate's {name}.npy is {str(values)[:20]}",
           changed(numbers(name, values), kind="gate", **DUPLICATES), RESEAL) for name, values in GATE_ARRAYS),
    *(case(f"the gate's {file} is a {kind}", changed(put(kind, file), kind="gate", **DUPLICATES), RESEAL)
      for file in ("manifest.json", "failed.npy") for kind in ("pipe", "link")),
    case("the gate's findings are a link", changed(away(""), kind="gate", **DUPLICATES), "is a link, where etude"),
]  # fmt: skip

CASES += [*DOORS, *SEALED, *GATE]


def in_run(folder: Path) -> list[str]:
    write_recipe(folder)
    (folder / "cache" / "checkpoints").mkdir(parents=True)
    (folder / "cache" / "run.json").write_text("{}")
    return ["prepare", "r.toml"]


def of_the_data(folder: Path) -> list[str]:
    write_recipe(folder)
    text = (folder / "r.toml").read_text().replace(str(folder / "rows.jsonl"), str(folder))
    (folder / "r.toml").write_text(text)
    return ["prepare", "r.toml"]


CASES += [
    case("the cache is the folder of a run", in_run, "is inside the folder of run cache"),
    Case(
        name="cache: the cache is the folder of the data", make=of_the_data,
        says=r"is in .ETUDE_CACHE, which etude", environment={"ETUDE_CACHE": "."},
    ),
]  # fmt: skip
