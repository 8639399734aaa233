"""The data gate: faults, duplicates and leaks of the documents of a recipe, found once and before training.

`$ETUDE_CACHE/gate/<key>/` holds, for the n documents with text in reading order (train, validation, test)
  failed.npy      (n) int64, bit i: fails clean.FILTERS[i]
  same_as.npy     (n) int64, the training document it repeats, or -1; of equal texts the first, else one that
                  is kept. With other labels it is no repeat
  similarity.npy  (n) float32, to that document; 1 only where they are equal but for white space
  leaks.npy       (m, 2) int64, a training document and the held-out one it is like; of those that are not
                  equal one pair for each held-out document, or for each training document if those that leak
                  are dropped
  planted.npy     (k, 3) int64, a training document, the number of a benchmark and of its problem
  places.npy      (n, 3) int64, source, file and place in it, as of `place_of`
  manifest.json   file names, problems and examples
"""

import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.cache import Built, Files, build_once, open_built, to_npy
from etude.data.clean import FILTERS
from etude.data.listing import USES, list_sources
from etude.data.passes import find_all
from etude.data.rows import place_of
from etude.data.samples.sample import Flags, Ints
from etude.data.sources import source_key
from etude.errors import InputError
from etude.recipe.data import Source
from etude.recipe.schema import Recipe
from etude.records import shape

_FORMAT = 4
_EXAMPLES = 3


def _check_example(value: list[Any]) -> list[Any]:
    return [shape.fit(part, kind) for part, kind in zip(value, (int, str), strict=True)]


_MANIFEST = shape.Object(
    {
        "documents": int, "blank": dict[str, int], "undecodable": list[str], "paths": list[str],
        "examples": dict[str, list[Annotated[list[Any], _check_example]]],
        "benchmarks": [shape.Object({"name": str, "problems": list[str], "looked_for": int})],
    }
)  # fmt: skip


def is_needed(recipe: Recipe) -> bool:
    """True if a recipe asks for anything that only the gate can tell."""
    data = recipe.data
    has_filters = any(policy in ("warn", "drop") for policy in data.clean.model_dump().values())
    has_held_out = bool(data.test) or isinstance(data.validation, list)
    return has_filters or has_held_out or data.deduplicate != "off" or bool(data.leakage.benchmarks)


@dataclass(frozen=True)
class Gate:
    """Findings over the n documents with text in reading order; columns as in the files."""

    recipe: Recipe
    key: str
    failed: Ints
    same_as: Ints
    similarity: npt.NDArray[np.float32]
    leaks: Ints
    planted: Ints
    places: Ints
    manifest: dict[str, Any]

    @functools.cached_property
    def uses(self) -> Ints:
        """Use of each document (n,), as a place in USES."""
        uses = np.array([USES.index(use) for use, _ in list_sources(self.recipe)], dtype=np.int64)
        return uses[self.places[:, 0]]

    @functools.cached_property
    def reasons(self) -> dict[str, Flags]:
        """Documents (n,) that each reason of the recipe removes, in the order in which reasons count."""
        data, repeated = self.recipe.data, self.same_as >= 0
        reasons: dict[str, Flags] = {
            name: (self.failed >> bit & 1) == 1
            for bit, name in enumerate(FILTERS)
            if getattr(data.clean, name) == "drop"
        }
        if data.deduplicate != "off":
            reasons["exact duplicate"] = repeated & (self.similarity >= 1)
        if data.deduplicate == "near":
            reasons["near-duplicate"] = repeated
        if data.leakage.action == "drop":
            leaking = np.zeros(len(repeated), dtype=np.bool_)
            leaking[self.leaks[self.uses[self.leaks[:, 0]] == 0, 0]] = True
            reasons["leak"] = leaking[self.first_of_equals]
            reasons["leak"][self.planted[:, 0]] = True
        return reasons

    @functools.cached_property
    def first_of_equals(self) -> Ints:
        """The first training document that each document repeats but for white space, or itself (n,)."""
        first: Ints = np.where(self.similarity >= 1, self.same_as, np.arange(len(self.same_as)))
        return first

    @functools.cached_property
    def removed(self) -> Flags:
        """Documents that the recipe leaves out (n,); held-out ones only if they fail a filter."""
        return functools.reduce(np.logical_or, self.reasons.values(), np.zeros(len(self.failed), np.bool_))

    def leaking(self, into: str, of: str) -> Ints:
        """Pairs of kept documents (m, 2): one of the set `into`, and the first like it of the set `of`."""
        first, second = self.leaks[:, 0], self.leaks[:, 1]
        wanted = (self.uses[first] == USES.index(of)) & (self.uses[second] == USES.index(into))
        pairs: Ints = self.leaks[wanted & ~self.removed[first] & ~self.removed[second]][:, ::-1]
        return pairs[np.unique(pairs[:, 0], return_index=True)[1]]

    def name(self, document: int) -> str:
        """Name the place of a document: `rows.jsonl:12`."""
        _, path, line = self.places[document].tolist()
        return place_of(self._names[path], line)

    @functools.cached_property
    def _names(self) -> list[str]:
        """The files, from the folder on in which all of them lie."""
        paths = self.manifest["paths"]
        common = os.path.commonpath([Path(path).parent for path in paths]) if paths else ""
        return [str(Path(path).relative_to(common)) for path in paths]


def examine(recipe: Recipe, *, again: bool = False) -> Gate:
    """Look at every document of a recipe, unless that was done before. Raises: InputError, StorageError."""
    key = gate_key(recipe)
    folder, _ = build_once("gate", key, lambda temporary: _build(recipe, key, temporary), again=again)
    built = open_built(folder, _MANIFEST)
    return Gate(recipe, key, **_read_columns(built, len(list_sources(recipe))), manifest=built.manifest)


def _read_columns(built: Built, sources: int) -> dict[str, Any]:
    """Read the columns of a gate. Raises: InputError if one names what there is not."""
    manifest = built.manifest
    count, paths, benchmarks = manifest["documents"], manifest["paths"], manifest["benchmarks"]
    columns = {
        "failed": built.array("failed", np.int64, (count,), most=(1 << len(FILTERS)) - 1),
        "same_as": built.array("same_as", np.int64, (count,), least=-1, most=count - 1),
        "similarity": built.array("similarity", np.float32, (count,), most=1),
        "leaks": built.array("leaks", np.int64, (None, 2), most=count - 1),
        "planted": built.array("planted", np.int64, (None, 3)),
        # Rows of a JSON array are negative.
        "places": built.array("places", np.int64, (count, 3), least=-(2**62)),
    }
    document, benchmark, problem = columns["planted"].T
    sizes = np.array([len(benchmark["problems"]) for benchmark in benchmarks], dtype=np.int64)
    source, path, _ = columns["places"].T
    shown = [index for examples in manifest["examples"].values() for index, _ in examples]
    if (
        min(source.min(initial=0), path.min(initial=0)) < 0
        or (document >= count).any()
        or (benchmark >= len(benchmarks)).any()
        or (problem >= sizes[benchmark]).any()
        or (source >= sources).any()
        or (path >= len(paths)).any()
        or max(shown, default=-1) >= count
        or ((columns["same_as"] < 0) & (columns["similarity"] >= 1)).any()
        or len({path.startswith("/") for path in paths}) > 1
    ):
        raise built.damaged("its findings are of documents, files or problems that there are not")
    return columns


def enforce(gate: Gate) -> None:
    """Raise InputError if nothing of a use is left, or if more of it leaks than the recipe allows."""
    leakage = gate.recipe.data.leakage
    for index, use in enumerate(USES):
        mine = gate.uses == index
        if mine.any() and gate.removed[mine].all():
            why = ", ".join(f"{count:,} {reason}" for reason, count in count_removed(gate, index).items())
            raise InputError(
                f"all {int(mine.sum()):,} documents of data.{use} are removed ({why}); "
                "set some filters of data.clean to warn, and look at `etude data RECIPE`"
            )
    for use in USES[1:]:
        kept = int(((gate.uses == USES.index(use)) & ~gate.removed).sum())
        pairs = gate.leaking(use, "train")
        if leakage.action == "refuse" and kept and len(pairs) > leakage.max_ratio * kept:
            examples = "; ".join(f"{gate.name(a)} = {gate.name(b)}" for a, b in pairs[:_EXAMPLES].tolist())
            raise InputError(
                f"data.{use} leaks: {len(pairs):,} of {kept:,} documents ({len(pairs) / kept:.1%}) are among "
                f"the training documents, or near-duplicates of some ({examples}); data.leakage.max_ratio "
                "allows "
                f'{leakage.max_ratio:.1%}; set data.leakage.action = "drop" to leave those training '
                "documents out"
            )


def count_removed(gate: Gate, use: int) -> dict[str, int]:
    """Count the removed documents of a use by the first reason that removes each."""
    left, counts = gate.uses == use, {}
    for reason, flags in gate.reasons.items():
        if hits := int((left & flags).sum()):
            counts[reason] = hits
        left = left & ~flags
    return counts


def gate_key(recipe: Recipe) -> str:
    """A key that changes with anything the findings depend on."""
    data = recipe.data
    key = [
        _FORMAT,
        [[use, source_key(source)] for use, source in list_sources(recipe)],
        data.clean.model_dump(),
        data.near_threshold,
        [source_key(Source(path=path)) for path in data.leakage.benchmarks],
        data.leakage.action == "drop",
    ]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _build(recipe: Recipe, key: str, folder: Path) -> tuple[Files, dict[str, Any]]:
    columns, manifest = find_all(recipe, folder)
    if gate_key(recipe) != key:
        raise InputError("the data changed while it was read; run the same command again once it is at rest")
    files = {
        f"{name}.npy": durable.write_file(folder / f"{name}.npy", to_npy(column))
        for name, column in columns.items()
    }
    return files, {"format": _FORMAT, **manifest}
