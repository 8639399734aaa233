"""Prepared data: documents tokenised once into memory-mapped files, shared by runs, and split by index arithmetic.

`$ETUDE_CACHE/prepared/<key>/` (default `~/.cache/etude`) holds
  tokens.bin        ids of every document, each followed by the end token; little-endian uint16 or uint32
  offsets.npy       (n + 1) int64, where each document starts in tokens.bin
  hashes.npy        (n, 16) uint8, SHA-256 of each text, cut to 128 bits
  units.npy         (n) int64, documents that share a group or a text have the same number
  sizes.npy         (n) int64, bytes of each text in UTF-8
  sources.npy       (n) int64, which source of the recipe; those of [[data.validation]] follow those of [[data.train]]
  token_bytes.npy   (vocabulary) int64, bytes each id stands for; empty if the tokenizer is not byte-level
  tokenizer.json    manifest.json (last: sizes, SHA-256, counts)
"""

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import re
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.sources import Document, describe, read_documents, source_key
from etude.data.split import Flags, Split, Texts, connect, cut_samples, hold_out, number_texts
from etude.data.tokenize import Tokenizer, load_tokenizer, token_bytes, tokenizer_key, train_tokenizer
from etude.errors import InputError, StorageError
from etude.recipe.schema import Recipe, Source

_FORMAT = 1
_BATCH_CHARACTERS = 4 << 20
_PIECE_CHARACTERS = 1 << 20
_TRAINING_BYTES = 64 << 20
_VERIFY_BYTES = 256 << 20
_BORDERS = (re.compile(r"\S\r?\n(?=\S)"), re.compile(r"\S(?= \w)"))
_BORDER_TRIES, _BORDER_WINDOW = 8, 200
_SMALL_FILES = ("offsets", "hashes", "units", "sizes", "sources", "token_bytes")


@dataclass(frozen=True)
class Corpus:
    """The samples of a recipe, and what they were made from.

    `fingerprint` depends on what the texts, the split and the tokenizer are, not on where or when files were written.
    """

    train: Split
    validation: Split | None
    tokenizer: Tokenizer
    fingerprint: str
    summary: dict[str, Any]


def prepare(recipe: Recipe, *, again: bool = False) -> Corpus:
    """Tokenise what a recipe names, unless that was done before, and split it.

    `again` builds anew what is there. One process builds; others that want the same wait for it.

    Raises: InputError if a source, the tokenizer or the prepared data cannot be used; StorageError if the disk fails.
    """
    started = time.monotonic()
    key = _cache_key(recipe)
    folder = cache_folder() / "prepared" / key
    build = again or not (folder / "manifest.json").exists()
    if build:
        durable.make_folder(folder.parent)
        with _locked(folder.with_suffix(".lock")):
            _remove_leftovers(folder.parent)
            if again or not (folder / "manifest.json").exists():
                _build(recipe, key, folder)
    corpus = _open(recipe, folder)
    corpus.summary.update(folder=str(folder), cached=not build, seconds=round(time.monotonic() - started, 3))
    return corpus


def cache_folder() -> Path:
    """Where prepared data lies: `$ETUDE_CACHE`, else `~/.cache/etude`."""
    return Path(os.environ.get("ETUDE_CACHE") or Path.home() / ".cache" / "etude")


def _cache_key(recipe: Recipe) -> str:
    train, validation = _sources(recipe)
    key: list[Any] = [_FORMAT, [source_key(source) for source in train], [source_key(source) for source in validation]]
    if recipe.tokenizer.from_ is not None:
        key.append(tokenizer_key(recipe.tokenizer))
    else:  # trained on the documents that are not held out
        held_out = None if recipe.data.validation is not None else recipe.data.validation_ratio
        key.append([recipe.tokenizer.train_vocab_size, held_out])
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _sources(recipe: Recipe) -> tuple[list[Source], list[Source]]:
    explicit = recipe.data.validation
    return recipe.data.train, explicit if isinstance(explicit, list) else []


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; it is gone afterwards. Raises: BlockingIOError if it is held and `wait` is false."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"cannot lock {path}: {error.strerror}; set ETUDE_CACHE to a folder you own") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(descriptor).st_nlink == 0:
                continue  # the holder before us removed the file while we waited, so it keeps nobody else out
            try:
                yield
            finally:
                path.unlink()
            return
        finally:
            os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    """Remove what builders left that were killed: a temporary folder whose lock nobody holds."""
    for leftover in parent.glob("*.tmp"):
        with contextlib.suppress(BlockingIOError), _locked(leftover.with_suffix(".lock"), wait=False):
            durable.remove_folder(leftover)


@dataclass
class _Tally:
    """What is known of the documents read so far; a few dozen bytes each."""

    hashes: bytearray = field(default_factory=bytearray)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    sources: "array[int]" = field(default_factory=lambda: array("q"))
    groups: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q", [0]))
    blank: list[int] = field(default_factory=list)
    unknown: int = 0
    _names: dict[str, int] = field(default_factory=dict)

    def read(self, sources: list[Source]) -> Iterator[Document]:
        """The documents with text, each noted down before it is handed on."""
        for index, source in enumerate(sources):
            self.blank.append(0)
            for document in read_documents(source):
                if document.blank:
                    self.blank[-1] += 1
                    continue
                data = document.text.encode()
                self.hashes += hashlib.sha256(data).digest()[:16]
                self.sizes.append(len(data))
                self.sources.append(index)
                # A document without a group gets a number below all groups, of its own.
                group = document.group
                alone = -len(self.sizes)
                self.groups.append(alone if group is None else self._names.setdefault(group, len(self._names)))
                yield document

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The small files of the prepared data, without token_bytes."""
        hashes = np.frombuffer(self.hashes, dtype=np.uint8).reshape(-1, 16)
        groups = np.unique(np.array(self.groups, dtype=np.int64), return_inverse=True)[1]
        columns = {"offsets": self.offsets, "sizes": self.sizes, "sources": self.sources}
        plain = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
        return {"hashes": hashes, "units": connect(groups, number_texts(hashes)), **plain}


def _build(recipe: Recipe, key: str, folder: Path) -> None:
    train, validation = _sources(recipe)
    temporary = folder.with_suffix(".tmp")
    scan: _Tally | None = None
    if recipe.tokenizer.from_ is not None:
        tokenizer = load_tokenizer(recipe.tokenizer)
        _check_vocab(recipe, tokenizer.vocab_size)
    else:
        tokenizer, scan = _train_tokenizer(recipe)
    width = 2 if tokenizer.vocab_size <= 1 << 16 else 4
    tally = _Tally()
    try:
        durable.remove_folder(temporary)
        durable.make_folder(temporary)
        encoded = _encode(tally, [*train, *validation], tokenizer)
        written = {
            "tokens.bin": durable.write_file(
                temporary / "tokens.bin", (ids.astype(f"<u{width}").data for ids in encoded)
            ),
            "tokenizer.json": durable.write_file(temporary / "tokenizer.json", tokenizer.to_json().encode()),
        }
        sizes = token_bytes(tokenizer)
        arrays = {**tally.arrays(), "token_bytes": np.zeros(0, dtype=np.int64) if sizes is None else sizes}
        if _cache_key(recipe) != key or (scan is not None and scan.hashes != tally.hashes):
            raise InputError("the data changed while it was read; run the same command again once it is at rest")
        for name, values in arrays.items():
            written[f"{name}.npy"] = durable.write_file(temporary / f"{name}.npy", _npy(values))
        manifest = {
            "format": _FORMAT,
            "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in written.items()},
            "token_width_bytes": width,
            "vocab_size": tokenizer.vocab_size,
            "eos_token": tokenizer.eos_token,
            "eos_id": tokenizer.eos_id,
            "tokenizer": tokenizer.fingerprint,
            "unknown_tokens": tally.unknown,
            "sources": [
                _source_summary(index, source, arrays, tally.blank[index], is_train=index < len(train))
                for index, source in enumerate([*train, *validation])
            ],
        }
        durable.write_json(temporary / "manifest.json", {**manifest, "sha256": _digest(manifest)})
        durable.remove_folder(folder, first="manifest.json")
        durable.rename_folder(temporary, folder)
    finally:
        durable.remove_folder(temporary)


def _check_vocab(recipe: Recipe, vocab_size: int) -> None:
    rows = recipe.model.vocab_size
    if rows is not None and vocab_size > rows:
        raise InputError(
            f"model.vocab_size is {rows:,} but the tokenizer has {vocab_size:,} ids; leave it out, or use {vocab_size}"
        )


def _train_tokenizer(recipe: Recipe) -> tuple[Tokenizer, _Tally]:
    """Train on what is not held out: a first reading finds out what that is, a second one trains."""
    assert recipe.tokenizer.train_vocab_size is not None
    train, validation = _sources(recipe)
    scan = _Tally()
    for _ in scan.read([*train, *validation]):
        pass
    arrays = scan.arrays()
    held, cut = _choose(recipe, arrays)
    # Beyond what a vocabulary can learn from, take the documents with the lowest tails of hashes; the heads split.
    share = min(_TRAINING_BYTES / max(int(arrays["sizes"][~held].sum()), 1), 1.0)
    tails = np.ascontiguousarray(arrays["hashes"][:, 8:]).view(">u8")[:, 0] / 2.0**64
    used = ~held & (tails <= share)
    if not used.any():
        used = ~held

    def texts() -> Iterator[str]:
        for index, document in enumerate(_Tally().read(train)):
            if index < len(used) and used[index]:
                kept = len(document.text) - math.ceil(recipe.data.validation_ratio * len(document.text))
                yield document.text[:kept] if cut[index] else document.text

    return train_tokenizer(texts(), recipe.tokenizer.train_vocab_size), scan


def _encode(tally: _Tally, sources: list[Source], tokenizer: Tokenizer) -> Iterator[npt.NDArray[np.int64]]:
    """The ids of all documents in pieces of a few MB of text, whatever the length of a document."""
    pieces: list[str] = []
    ends: list[bool] = []
    waiting, total = 0, 0
    eos = np.array([tokenizer.eos_id])

    def flush() -> npt.NDArray[np.int64]:
        nonlocal total
        parts: list[npt.NDArray[np.int64]] = []
        for ids, end in zip(tokenizer.encode_batch(pieces), ends):
            parts += [ids, eos] if end else [ids]
            tally.unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
            total += len(ids) + end
            if end:
                tally.offsets.append(total)
        joined = np.concatenate(parts)
        assert joined.min() >= 0 and joined.max() < tokenizer.vocab_size, "an id beyond the vocabulary"
        return joined

    for document in tally.read(sources):
        for piece, end in cut_text(document.text, tokenizer):
            pieces.append(piece)
            ends.append(end)
            waiting += len(piece)
            if waiting >= _BATCH_CHARACTERS:
                yield flush()
                pieces, ends, waiting = [], [], 0
    if pieces:
        yield flush()


def cut_text(text: str, tokenizer: Tokenizer, piece_characters: int = _PIECE_CHARACTERS) -> Iterator[tuple[str, bool]]:
    """A text in pieces whose ids, end to end, are those of the whole; each with whether it is the last.

    A cut lies after a line end or before a word, where tokenizers that split words have a border; whether this one has
    is tried on the text around it. Where none is found, the rest stays whole.
    """
    start = 0
    while len(text) - start > piece_characters:
        window = (text, start + piece_characters // 2, start + piece_characters)
        matches = (match for border in _BORDERS for match in itertools.islice(border.finditer(*window), _BORDER_TRIES))
        cut = next((match.end() for match in matches if _is_border(text, match.end(), tokenizer)), None)
        if cut is None:
            break
        yield text[start:cut], False
        start = cut
    yield text[start:], True


def _is_border(text: str, place: int, tokenizer: Tokenizer) -> bool:
    left, right = text[place - _BORDER_WINDOW : place], text[place : place + _BORDER_WINDOW]
    whole, first, second = tokenizer.encode_batch([left + right, left, right])
    return np.array_equal(whole, np.concatenate([first, second]))


def _npy(values: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


def _source_summary(
    index: int, source: Source, arrays: dict[str, npt.NDArray[Any]], blank: int, *, is_train: bool
) -> dict[str, Any]:
    mine = arrays["sources"] == index
    documents = int(mine.sum())
    return {
        "name": source.source or source.path,
        "use": "train" if is_train else "validation",
        "found": describe(source, documents + blank),
        "documents": documents,
        "blank": blank,
        "bytes": int(arrays["sizes"][mine].sum()),
        "tokens": int(np.diff(arrays["offsets"])[mine].sum()),
    }


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _choose(recipe: Recipe, arrays: dict[str, npt.NDArray[Any]]) -> tuple[Flags, Flags]:
    """Which documents are held out as a whole, and which are cut by position: both (n,).

    A document is cut if it is all that its source has and no other belongs with it.
    """
    sources, units = arrays["sources"], arrays["units"]
    held, cut = np.zeros(len(units), dtype=np.bool_), np.zeros(len(units), dtype=np.bool_)
    if isinstance(recipe.data.validation, list):
        return sources >= len(recipe.data.train), cut
    if recipe.data.validation == "none":
        return held, cut
    cut = (np.bincount(sources)[sources] == 1) & (np.bincount(units)[units] == 1)
    rest = ~cut
    if not cut.any() or len(np.unique(units[rest])) > 1:
        held[rest] = hold_out(arrays["hashes"][rest], units[rest], recipe.data.validation_ratio)
    return held, cut


def _open(recipe: Recipe, folder: Path) -> Corpus:
    """Check the files of a prepared folder and split what they hold."""
    manifest = _verify(folder)
    _check_vocab(recipe, manifest["vocab_size"])
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _SMALL_FILES}
    width = manifest["token_width_bytes"]
    tokens = np.asarray(np.memmap(folder / "tokens.bin", dtype=f"<u{width}", mode="r"))
    held, cut = _choose(recipe, arrays)
    starts, ends = arrays["offsets"][:-1], arrays["offsets"][1:]
    middles = ends - 1 - np.ceil(recipe.data.validation_ratio * (ends - starts - 1)).astype(np.int64)
    middles = np.where(middles > starts, middles, ends)  # too short to be cut
    # The parts of cut documents come last, as no end token separates them from what follows.
    whole = ~held & ~cut
    each = arrays["token_bytes"] if len(arrays["token_bytes"]) else None
    texts = Texts(tokens, arrays["offsets"], arrays["sizes"], each, manifest["eos_id"])
    mode, seq_len = recipe.data.sample, recipe.train.seq_len
    train = cut_samples(texts, np.r_[starts[whole], starts[cut]], np.r_[ends[whole], middles[cut]], mode, seq_len)
    validation = cut_samples(texts, np.r_[starts[held], middles[cut]], np.r_[ends[held], ends[cut]], mode, seq_len)
    if recipe.data.validation != "none" and not len(validation):
        raise InputError(
            f"data.validation: {len(tokens) - len(ends)} tokens are too few to hold out a share of "
            f'{recipe.data.validation_ratio}; give more text, or set data.validation = "none"'
        )
    same = number_texts(arrays["hashes"])
    summary = {
        "sources": manifest["sources"],
        "train": _split_summary(train),
        "validation": _split_summary(validation) if len(validation) else None,
        "overlap": int(np.isin(same[held], same[~held]).sum()),
        "vocab_size": manifest["vocab_size"],
        "unknown_ratio": manifest["unknown_tokens"] / len(tokens),
        "bytes_per_token": int(arrays["sizes"].sum()) / max(len(tokens) - len(ends), 1),
    }
    return Corpus(
        train=train,
        validation=validation if len(validation) else None,
        tokenizer=Tokenizer((folder / "tokenizer.json").read_text("utf-8"), manifest["eos_token"]),
        fingerprint=_fingerprint(manifest["tokenizer"], arrays["hashes"], train, validation),
        summary=summary,
    )


def _verify(folder: Path) -> dict[str, Any]:
    """The manifest, once the files are what it says; of very large token files only the size is checked."""
    file = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_bytes())
        if manifest.pop("sha256") != _digest(manifest):
            raise ValueError("checksum")
        total = sum(entry["size"] for entry in manifest["files"].values())
        for name, entry in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != entry["size"]:
                raise ValueError("size")
            if (total <= _VERIFY_BYTES or name != "tokens.bin") and durable.sha256_file(file) != entry["sha256"]:
                raise ValueError("checksum")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(
            f"prepared data {file} is damaged: it is not what was written; "
            "`etude prepare RECIPE --again` builds it anew"
        ) from None
    return manifest


def _split_summary(split: Split) -> dict[str, Any]:
    return {
        "documents": split.documents,
        "samples": len(split),
        "tokens": split.targets,
        "bytes": split.bytes,
        "truncated": split.truncated,
    }


def _fingerprint(tokenizer: str, hashes: npt.NDArray[np.uint8], *splits: Split) -> str:
    digest = hashlib.sha256(tokenizer.encode())
    digest.update(hashes.tobytes())
    for split in splits:
        digest.update(np.stack([split.starts, split.ends]).astype("<i8").tobytes() + b"split")
    return digest.hexdigest()
