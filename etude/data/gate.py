"""The data gate: what is wrong with the documents of a recipe, found once and before anything is trained.

Two passes over the sources, in batches on all cores, with a few dozen bytes kept of each document: the first
cleans, hashes and compares with benchmarks; the second reads again only those that may be near-duplicates.

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
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.cache import Built, Files, build_once, open_built, to_npy
from etude.data.clean import FILTERS, Limits, check, excerpt
from etude.data.dedup import Match, choose_bands, find_buckets, hash_bands, match_near
from etude.data.encode import batch_documents
from etude.data.labels import labelling
from etude.data.leaks import Problems, find_planted, read_problems
from etude.data.pool import map_batches
from etude.data.rows import place_of
from etude.data.samples.sample import Flags, Ints
from etude.data.shingles import Hashes, shingle
from etude.data.sources import Document, read_documents, source_key
from etude.data.split import hash_words, number_texts
from etude.errors import InputError
from etude.recipe.schema import Recipe, Source
from etude.records import shape

USES = ("train", "validation", "test")
_FORMAT = 4
_BATCH_CHARACTERS = 2 << 20
_EXAMPLES = 3
_KEPT_SETS = 256  # sets of shingles that stay in memory while pairs are compared
_BELOW_EQUAL = np.nextafter(np.float32(1), np.float32(0))  # of texts that differ in comments or case alone
_COLUMNS = ("failed", "same_as", "similarity", "leaks", "planted", "places")


def _check_example(value: list[Any]) -> list[Any]:
    return [shape.fit(part, kind) for part, kind in zip(value, (int, str), strict=True)]


_MANIFEST = shape.Object(
    {
        "documents": int, "blank": dict[str, int], "undecodable": list[str], "paths": list[str],
        "examples": dict[str, list[Annotated[list[Any], _check_example]]],
        "benchmarks": [shape.Object({"name": str, "problems": list[str], "looked_for": int})],
    }
)  # fmt: skip


def list_sources(recipe: Recipe) -> list[tuple[str, Source]]:
    """Every source and what it is used for, in reading order."""
    validation = recipe.data.validation
    named = {"train": recipe.data.train, "validation": validation if isinstance(validation, list) else []}
    return [
        (use, source) for use, sources in (named | {"test": recipe.data.test}).items() for source in sources
    ]


def is_needed(recipe: Recipe) -> bool:
    """Whether a recipe asks for anything that only the gate can tell."""
    data = recipe.data
    has_filters = any(policy in ("warn", "drop") for policy in data.clean.model_dump().values())
    return (
        has_filters
        or data.deduplicate != "off"
        or bool(data.leakage.benchmarks)
        or bool(data.test)
        or isinstance(data.validation, list)
    )


@dataclass(frozen=True)
class Gate:
    """What was found, over the n documents with text in reading order; columns as in the files."""

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
        """(n,) which of USES each document is for."""
        uses = np.array([USES.index(use) for use, _ in list_sources(self.recipe)], dtype=np.int64)
        return uses[self.places[:, 0]]

    @functools.cached_property
    def removed(self) -> Flags:
        """(n,) the documents that the recipe leaves out.

        Held-out ones stay, but for those that fail a filter.
        """
        data = self.recipe.data
        removed: Flags = (self.failed & _mask(self.recipe, "drop")) != 0
        if data.deduplicate != "off":
            least = 1.0 if data.deduplicate == "exact" else 0.0
            removed |= (self.same_as >= 0) & (self.similarity >= least)
        if data.leakage.action == "drop":
            leaking = np.zeros(len(removed), dtype=np.bool_)
            leaking[self.leaks[self.uses[self.leaks[:, 0]] == 0, 0]] = True
            removed |= leaking[self.first_of_equals]
            removed[self.planted[:, 0]] = True
        return removed

    @functools.cached_property
    def first_of_equals(self) -> Ints:
        """(n,) the first training document that each repeats but for white space, or itself."""
        first: Ints = np.where(self.similarity >= 1, self.same_as, np.arange(len(self.same_as)))
        return first

    def leaking(self, into: str, of: str) -> Ints:
        """Pairs (m, 2) of kept documents: one of the set `into`, and the first of the set `of` that is like
        it.
        """
        first, second = self.leaks[:, 0], self.leaks[:, 1]
        wanted = (self.uses[first] == USES.index(of)) & (self.uses[second] == USES.index(into))
        pairs: Ints = self.leaks[wanted & ~self.removed[first] & ~self.removed[second]][:, ::-1]
        return pairs[np.unique(pairs[:, 0], return_index=True)[1]]

    def name(self, document: int) -> str:
        """Where a document stands: `rows.jsonl:12`."""
        _, path, line = self.places[document].tolist()
        return place_of(self._names[path], line)

    @functools.cached_property
    def _names(self) -> list[str]:
        """The files, from the folder on in which all of them lie."""
        paths = self.manifest["paths"]
        common = os.path.commonpath([Path(path).parent for path in paths]) if paths else ""
        return [str(Path(path).relative_to(common)) for path in paths]


def examine(recipe: Recipe, *, again: bool = False) -> Gate:
    """Look at every document of a recipe, unless that was done before.

    Raises: InputError if a source or benchmark cannot be read; StorageError if the disk fails.
    """
    key = gate_key(recipe)
    folder, _ = build_once("gate", key, lambda temporary: _build(recipe, key, temporary), again=again)
    built = open_built(folder, _MANIFEST)
    return Gate(recipe, key, **_read_columns(built, len(list_sources(recipe))), manifest=built.manifest)


def _read_columns(built: Built, sources: int) -> dict[str, Any]:
    """The columns of a gate.

    Raises: InputError if one is not of the documents, or names what there is not.
    """
    manifest = built.manifest
    count, paths, benchmarks = manifest["documents"], manifest["paths"], manifest["benchmarks"]
    columns = {
        "failed": built.array("failed", np.int64, (count,), most=(1 << len(FILTERS)) - 1),
        "same_as": built.array("same_as", np.int64, (count,), least=-1, most=count - 1),
        "similarity": built.array("similarity", np.float32, (count,), most=1),
        "leaks": built.array("leaks", np.int64, (None, 2), most=count - 1),
        "planted": built.array("planted", np.int64, (None, 3)),
        "places": built.array(
            "places", np.int64, (count, 3), least=-(2**62)
        ),  # rows of a JSON array are negative
    }
    document, benchmark, problem = columns["planted"].T
    sizes = np.array([len(each["problems"]) for each in benchmarks], dtype=np.int64)
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
        or len({each.startswith("/") for each in paths}) > 1
    ):
        raise built.damaged("its findings are of documents, files or problems that there are not")
    return columns


def enforce(gate: Gate) -> None:
    """Raises: InputError if everything was removed, or if more of a held-out set leaks than the recipe
    allows.
    """
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
    """How many documents of a use are removed, by the first reason that removes each."""
    data = gate.recipe.data
    left = gate.removed & (gate.uses == use)
    counts: dict[str, int] = {}

    def take(reason: str, flags: Flags) -> None:
        nonlocal left
        if hits := int((left & flags).sum()):
            counts[reason] = hits
        left = left & ~flags

    for bit, name in enumerate(FILTERS):
        if getattr(data.clean, name) == "drop":
            take(name, (gate.failed >> bit & 1) == 1)
    if data.deduplicate != "off":
        take("exact duplicate", (gate.same_as >= 0) & (gate.similarity >= 1))
        take("near-duplicate", gate.same_as >= 0)
    take("leak", np.ones(len(left), dtype=np.bool_))
    return counts


def gate_key(recipe: Recipe) -> str:
    """What the findings depend on."""
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


def _mask(recipe: Recipe, policy: str) -> int:
    return sum(1 << bit for bit, name in enumerate(FILTERS) if getattr(recipe.data.clean, name) == policy)


@dataclass(frozen=True)
class _Task:
    """What is to be found out of each document; problems: the folder that holds those of the benchmarks."""

    wanted: tuple[str, ...]
    limits: Limits
    threshold: float
    problems: Path | None


@dataclass
class _Found:
    """What the first pass found, document by document."""

    texts: bytearray = field(default_factory=bytearray)
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    failed: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    planted: "array[int]" = field(default_factory=lambda: array("q"))
    empty: bytearray = field(default_factory=bytearray)
    paths: dict[str, int] = field(default_factory=dict)
    labellings: dict[tuple[str, ...], int] = field(default_factory=dict)
    blank: dict[str, int] = field(default_factory=dict)
    undecodable: list[str] = field(default_factory=list)
    examples: dict[str, list[tuple[int, str]]] = field(default_factory=dict)


def _build(recipe: Recipe, key: str, folder: Path) -> tuple[Files, dict[str, Any]]:
    data = recipe.data
    sources = list_sources(recipe)
    problems, names = read_problems(data.leakage.benchmarks)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        if names:
            problems.save(place)
        wanted = tuple(name for name in FILTERS if getattr(data.clean, name) != "off")
        task = _Task(
            wanted,
            Limits(data.clean.min_characters, data.clean.max_characters),
            data.near_threshold,
            place if names else None,
        )
        found = _first_pass(recipe, sources, task, place)
        count = len(found.failed)
        places = np.array(found.places, dtype=np.int64).reshape(-1, 3)
        uses = np.array([USES.index(use) for use, _ in sources], dtype=np.int64)[places[:, 0]]
        failed = np.array(found.failed, dtype=np.int64)
        dropped = (failed & _mask(recipe, "drop")) != 0
        labels = np.array(found.labels, dtype=np.int64)
        same_as, leaks = _match_exact(found.texts, labels, uses, dropped)
        similarity = (same_as >= 0).astype(np.float32)
        usable = ~dropped & (same_as < 0) & ~np.frombuffer(found.empty, dtype=np.bool_)
        duplicates, pairs = _match_near(recipe, sources, place, usable, uses > 0, labels)
        for match in duplicates:
            same_as[match.document] = match.other
            similarity[match.document] = min(np.float32(match.similarity), _BELOW_EQUAL)
        leaks = np.unique(np.r_[leaks, np.array(pairs, dtype=np.int64).reshape(-1, 2)], axis=0)
    if gate_key(recipe) != key:
        raise InputError("the data changed while it was read; run the same command again once it is at rest")
    planted = np.array(found.planted, dtype=np.int64).reshape(-1, 3)
    columns = {
        "failed": failed, "same_as": same_as, "similarity": similarity, "leaks": leaks, "places": places,
        "planted": planted[uses[planted[:, 0]] == 0],
    }  # fmt: skip
    files = {
        f"{name}.npy": durable.write_file(folder / f"{name}.npy", to_npy(columns[name])) for name in _COLUMNS
    }
    said = {
        "format": _FORMAT,
        "documents": count,
        "blank": found.blank,
        "undecodable": found.undecodable,
        "paths": list(found.paths),
        "examples": found.examples,
        "benchmarks": [
            {"name": path, "problems": each, "looked_for": problems.looked_for(number)}
            for number, (path, each) in enumerate(zip(data.leakage.benchmarks, names))
        ],
    }
    return files, said


def _first_pass(recipe: Recipe, sources: list[tuple[str, Source]], task: _Task, scratch: Path) -> _Found:
    found = _Found()
    documents = (_note(document, index, found) for index, document in _read(recipe, sources, found))
    batches = (
        [(document.name, document.content) for document in batch]
        for batch in batch_documents(documents, _BATCH_CHARACTERS)
    )
    with _Columns(scratch, choose_bands(task.threshold)[0]) as columns:
        for made in map_batches(functools.partial(_measure, task), batches, executor=recipe.data.executor):
            at = len(found.failed)
            found.texts += made["texts"]
            found.failed.extend(made["failed"])
            found.empty += made["empty"]
            columns.write(made["bands"])
            for name, shown in made["examples"].items():
                kept = found.examples.setdefault(name, [])
                kept += [(at + index, text) for index, text in shown[: _EXAMPLES - len(kept)]]
            for document, benchmark, problem in made["planted"]:
                found.planted.extend((at + document, benchmark, problem))
    return found


def _read(
    recipe: Recipe, sources: list[tuple[str, Source]], found: _Found | None
) -> Iterator[tuple[int, Document]]:
    """The documents with text of all sources, each with the number of its source; what else there is, is
    noted.
    """
    for index, (use, source) in enumerate(sources):
        for document in read_documents(source, undecodable=recipe.data.clean.undecodable != "off"):
            if not document.blank:
                yield index, document
            elif found is not None and document.is_undecodable:
                found.undecodable.append(document.name)
            elif found is not None:
                found.blank[use] = found.blank.get(use, 0) + 1


def _note(document: Document, source: int, found: _Found) -> Document:
    key = () if document.label is None else labelling(document.label)
    found.labels.append(found.labellings.setdefault(key, len(found.labellings)))
    found.places.extend((source, found.paths.setdefault(document.path, len(found.paths)), document.line))
    return document


def _measure(task: _Task, batch: list[tuple[str, str]]) -> dict[str, Any]:
    """What is found out of a batch of (name, text), in a process of its own."""
    texts = [text for _, text in batch]
    failed: list[int] = []
    examples: dict[str, list[tuple[int, str]]] = {}
    for index, (name, text) in enumerate(batch):
        fails = check(text, name, task.limits, task.wanted) if task.wanted else []
        failed.append(sum(1 << FILTERS.index(each) for each in fails))
        for each in fails:
            shown = examples.setdefault(each, [])
            if len(shown) < _EXAMPLES:
                shown.append((index, excerpt(text, each, name)))
    hashes, offsets = shingle(texts)
    return {
        "failed": failed,
        "examples": examples,
        "texts": b"".join(map(hash_words, texts)),
        "empty": (np.diff(offsets) == 0).tobytes(),
        "bands": hash_bands(hashes, offsets, task.threshold),
        "planted": find_planted(hashes, offsets, Problems.load(task.problems)) if task.problems else [],
    }


class _Columns:
    """Numbers (n, bands) that come row by row and are wanted column by column: a file for each column."""

    def __init__(self, folder: Path, count: int) -> None:
        self._paths = [folder / f"band-{index}" for index in range(count)]

    def __enter__(self) -> "_Columns":
        self._files = [path.open("wb") for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, rows: Hashes) -> None:
        for file, column in zip(self._files, rows.T):
            file.write(np.ascontiguousarray(column).tobytes())


def _match_exact(texts: bytearray, labels: Ints, uses: Ints, dropped: Flags) -> tuple[Ints, Ints]:
    """The first training document with text and labels of each (n,), and the pairs of equal texts of
    different uses.
    """
    count = len(uses)
    number = number_texts(np.frombuffer(texts, dtype=np.uint8).reshape(-1, 16))
    first = {use: np.full(count, count, dtype=np.int64) for use in range(len(USES))}
    for use, table in first.items():
        mine = np.flatnonzero((uses == use) & ~dropped)
        np.minimum.at(table, number[mine], mine)
    train = np.flatnonzero((uses == 0) & ~dropped)
    same_as = np.full(count, -1, dtype=np.int64)
    labelled = number[train] * (labels.max(initial=0) + 1) + labels[train]
    _, begins, repeated = np.unique(labelled, return_index=True, return_inverse=True)
    original = train[begins[repeated]]
    same_as[train] = np.where(original < train, original, -1)
    leaks = []
    for of in range(len(USES)):
        for into in range(of + 1, len(USES)):
            mine = np.flatnonzero((uses == of) & ~dropped)
            # Every document of the one set that has the text of any of the other, and every one of the other.
            hit = mine[first[into][number[mine]] < count]
            leaks.append(np.stack([hit, first[into][number[hit]]], axis=1))
            theirs = np.flatnonzero((uses == into) & ~dropped)
            hit = theirs[first[of][number[theirs]] < count]
            leaks.append(np.stack([first[of][number[hit]], hit], axis=1))
    return same_as, np.unique(np.concatenate(leaks), axis=0).astype(np.int64)


def _match_near(
    recipe: Recipe,
    sources: list[tuple[str, Source]],
    scratch: Path,
    usable: Flags,
    held_out: Flags,
    labels: Ints,
) -> tuple[list[Match], list[tuple[int, int]]]:
    paths = sorted(scratch.glob("band-*"))
    columns = (np.fromfile(path, dtype=np.uint64) for path in paths)
    buckets = find_buckets(columns, usable)
    for path in paths:
        path.unlink()
    wanted = np.zeros(len(usable), dtype=np.bool_)
    wanted[buckets.documents] = True
    documents = (document for (_, document), want in zip(_read(recipe, sources, None), wanted) if want)
    parts = batch_documents(documents, _BATCH_CHARACTERS)
    batches = ([document.content for document in part] for part in parts)
    lengths: list[Ints] = []
    with (scratch / "shingles").open("wb") as file:
        for hashes, counts in map_batches(_unique_shingles, batches, executor=recipe.data.executor):
            file.write(hashes.tobytes())
            lengths.append(counts)
    offsets = np.r_[0, np.cumsum(np.concatenate(lengths))] if lengths else np.zeros(1, dtype=np.int64)
    keep_leaks = recipe.data.leakage.action != "drop"
    with (scratch / "shingles").open("rb") as sets:

        @functools.lru_cache(maxsize=_KEPT_SETS)
        def of(
            index: int,
        ) -> Hashes:  # read, not mapped: pages of a map would count as memory of this process
            low, high = offsets[index : index + 2].tolist()
            return np.frombuffer(os.pread(sets.fileno(), 8 * (high - low), 8 * low), dtype=np.uint64)

        return match_near(buckets, of, held_out, labels, recipe.data.near_threshold, keep_leaks=keep_leaks)


def _unique_shingles(texts: list[str]) -> tuple[Hashes, Ints]:
    hashes, offsets = shingle(texts)
    each = [np.unique(part) for part in np.split(hashes, offsets[1:-1])]
    return np.concatenate(each), np.array([len(part) for part in each], dtype=np.int64)
