"""Two passes over the documents of a recipe, in batches on all cores, with a few dozen bytes kept of each.

The first cleans, hashes and compares with benchmarks; the second reads again only those documents that may be
near-duplicates.
"""

import contextlib
import functools
import os
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.clean import FILTERS, Limits, check, excerpt
from etude.data.dedup import Match, choose_bands, find_buckets, hash_bands, match_exact, match_near
from etude.data.encode import batch_documents
from etude.data.labels import labelling
from etude.data.leaks import Problems, find_planted, read_problems
from etude.data.listing import USES, list_sources
from etude.data.pool import map_batches
from etude.data.samples.sample import Flags, Ints
from etude.data.shingles import Hashes, shingle, shingle_sets
from etude.data.sources import Document, read_documents
from etude.data.split import hash_words
from etude.recipe.schema import Recipe

_BATCH_CHARACTERS = 2 << 20
_EXAMPLES = 3
_KEPT_SETS = 256  # sets of shingles that stay in memory while pairs are compared
_BELOW_EQUAL = np.nextafter(np.float32(1), np.float32(0))  # of texts that differ in comments or case alone


def find_all(recipe: Recipe, folder: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The columns of a gate, and the values of its manifest; scratch files go into the folder for a while.

    Raises: InputError if a source or benchmark cannot be read.
    """
    benchmarks = recipe.data.leakage.benchmarks
    problems, names = read_problems(benchmarks)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        scratch = Path(temporary)
        if names:
            problems.save(scratch)
        notes, checked = _first_pass(recipe, scratch, has_problems=bool(names))
        labels, places = np.array(notes.labels), np.array(notes.places).reshape(-1, 3)
        uses = np.array([USES.index(use) for use, _ in list_sources(recipe)])[places[:, 0]]
        policies = recipe.data.clean
        dropping = sum(1 << bit for bit, name in enumerate(FILTERS) if getattr(policies, name) == "drop")
        is_dropped = (checked["failed"] & dropping) != 0
        same_as, leaks = match_exact(checked["digests"], labels, uses, is_dropped)
        similarity = (same_as >= 0).astype(np.float32)
        usable = ~is_dropped & (same_as < 0) & ~checked["empty"]
        duplicates, pairs = _second_pass(recipe, scratch, usable, uses > 0, labels)
    for match in duplicates:
        same_as[match.document] = match.other
        similarity[match.document] = min(np.float32(match.similarity), _BELOW_EQUAL)
    columns = {
        "failed": checked["failed"], "same_as": same_as, "similarity": similarity, "places": places,
        "leaks": np.unique(np.r_[leaks, np.array(pairs, dtype=np.int64).reshape(-1, 2)], axis=0),
        "planted": checked["planted"][uses[checked["planted"][:, 0]] == 0],
    }  # fmt: skip
    return columns, {
        "documents": len(places), "blank": notes.blank, "undecodable": notes.undecodable,
        "paths": [str(Path(path).absolute()) for path in notes.paths], "examples": notes.examples,
        "benchmarks": [
            {"name": path, "problems": mine, "looked_for": problems.looked_for(number)}
            for number, (path, mine) in enumerate(zip(benchmarks, names))
        ],
    }  # fmt: skip


@dataclass
class _Notes:
    """Labels and places of the documents with text, in reading order, and the names of all others."""

    labels: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    paths: dict[str, int] = field(default_factory=dict)
    labellings: dict[tuple[str, ...], int] = field(default_factory=dict)
    blank: dict[str, int] = field(default_factory=dict)
    undecodable: list[str] = field(default_factory=list)
    examples: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, document: Document, source: int, use: str) -> None:
        if document.is_undecodable:
            self.undecodable.append(document.name)
        elif document.blank:
            self.blank[use] = self.blank.get(use, 0) + 1
        else:
            label = () if document.label is None else labelling(document.label)
            self.labels.append(self.labellings.setdefault(label, len(self.labellings)))
            path = self.paths.setdefault(document.path, len(self.paths))
            self.places.extend((source, path, document.line))


@dataclass(frozen=True)
class _Checks:
    """Checks of each document; problems: the folder that holds those of the benchmarks."""

    filters: tuple[str, ...]
    limits: Limits
    threshold: float
    problems: Path | None


def _read(recipe: Recipe, notes: _Notes | None = None) -> Iterator[Document]:
    """Read the documents with text of all sources; `notes` takes what else there is, too."""
    for index, (use, source) in enumerate(list_sources(recipe)):
        for document in read_documents(source, undecodable=recipe.data.clean.undecodable != "off"):
            if notes is not None:
                notes.add(document, index, use)
            if not document.blank:
                yield document


def _first_pass(
    recipe: Recipe, scratch: Path, *, has_problems: bool
) -> tuple[_Notes, dict[str, npt.NDArray[Any]]]:
    """Check every document: notes, and columns; `scratch` gets a file for each band of their signatures."""
    clean, threshold = recipe.data.clean, recipe.data.near_threshold
    filters = tuple(name for name in FILTERS if getattr(clean, name) != "off")
    limits = Limits(clean.min_characters, clean.max_characters)
    checks = _Checks(filters, limits, threshold, scratch if has_problems else None)
    notes, columns, count = _Notes(), [], 0
    batches = (
        [(document.name, document.content) for document in batch]
        for batch in batch_documents(_read(recipe, notes), _BATCH_CHARACTERS)
    )
    check_batch = functools.partial(_check_batch, checks)
    with contextlib.ExitStack() as stack:
        paths = [scratch / f"band-{index}" for index in range(choose_bands(threshold)[0])]
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for part, bands, examples in map_batches(check_batch, batches, executor=recipe.data.executor):
            for file, band in zip(files, bands.T):
                file.write(band.tobytes())
            for name, shown in examples.items():
                kept = notes.examples.setdefault(name, [])
                kept += [(count + index, text) for index, text in shown[: _EXAMPLES - len(kept)]]
            columns.append(part | {"planted": part["planted"] + [count, 0, 0]})
            count += len(part["failed"])
    return notes, {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}


def _check_batch(
    checks: _Checks, batch: list[tuple[str, str]]
) -> tuple[dict[str, npt.NDArray[Any]], Hashes, dict[str, list[tuple[int, str]]]]:
    """Check a batch of (name, text), in a process of its own: columns, bands (n, bands), and examples."""
    texts = [text for _, text in batch]
    failed = np.zeros(len(batch), dtype=np.int64)
    examples: dict[str, list[tuple[int, str]]] = {}
    for index, (name, text) in enumerate(batch):
        for fails in check(text, name, checks.limits, checks.filters) if checks.filters else []:
            failed[index] |= 1 << FILTERS.index(fails)
            shown = examples.setdefault(fails, [])
            if len(shown) < _EXAMPLES:
                shown.append((index, excerpt(text, fails, name)))
    hashes, offsets = shingle(texts)
    columns = {
        "failed": failed,
        "empty": np.diff(offsets) == 0,
        "digests": np.frombuffer(b"".join(map(hash_words, texts)), dtype=np.uint8).reshape(-1, 16),
        "planted": np.zeros((0, 3), dtype=np.int64),
    }
    if checks.problems:
        columns["planted"] = find_planted(hashes, offsets, Problems.load(checks.problems))
    return columns, hash_bands(hashes, offsets, checks.threshold), examples


def _second_pass(
    recipe: Recipe, scratch: Path, usable: Flags, held_out: Flags, labels: Ints
) -> tuple[list[Match], list[tuple[int, int]]]:
    """Compare the documents that share a band; their shingles lie in a file meanwhile."""
    paths = sorted(scratch.glob("band-*"))
    buckets = find_buckets((np.fromfile(path, dtype=np.uint64) for path in paths), usable)
    for path in paths:
        path.unlink()
    wanted = np.zeros(len(usable), dtype=np.bool_)
    wanted[buckets.documents] = True
    documents = (document for document, want in zip(_read(recipe), wanted) if want)
    parts = batch_documents(documents, _BATCH_CHARACTERS)
    batches = ([document.content for document in part] for part in parts)
    ends = array("q", [0])
    with (scratch / "shingles").open("w+b") as file:
        for hashes, counts in map_batches(shingle_sets, batches, executor=recipe.data.executor):
            file.write(hashes.tobytes())
            ends.extend((ends[-1] + counts.cumsum()).tolist())
        file.flush()

        @functools.lru_cache(maxsize=_KEPT_SETS)
        def shingles(index: int) -> Hashes:
            # Read, not mapped: pages of a map would count as memory of this process.
            low, high = ends[index : index + 2]
            return np.frombuffer(os.pread(file.fileno(), 8 * (high - low), 8 * low), dtype=np.uint64)

        keep_leaks = recipe.data.leakage.action != "drop"
        threshold = recipe.data.near_threshold
        return match_near(buckets, shingles, held_out, labels, threshold, keep_leaks=keep_leaks)
