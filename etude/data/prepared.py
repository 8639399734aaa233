"""Prepared data: documents tokenised once into memory-mapped files, shared by runs, and split by index arithmetic.

`$ETUDE_CACHE/prepared/<key>/` (default `~/.cache/etude`) holds
  tokens.bin        ids of every document, each followed by the end token; little-endian uint16 or uint32.
                    Of a conversation, what the chat template makes of it
  offsets.npy       (n + 1) int64, where each document starts in tokens.bin
  hashes.npy        (n, 16) uint8, SHA-256 of each text, cut to 128 bits
  units.npy         (n) int64, documents that share a group or a text have the same number
  sizes.npy         (n) int64, bytes of each text in UTF-8
  sources.npy       (n) int64, which source of the recipe; those of [[data.validation]] follow those of [[data.train]]
  token_bytes.npy   (vocabulary) int64, bytes each id stands for; empty if the tokenizer is not byte-level
  tokenizer.json    manifest.json (last: sizes, SHA-256, counts)
  given-*           the files that the tokenizer came as
and, where documents are examples,
  answers.npy       (m, 2) int64, where what is learnt begins and ends in tokens.bin; of a text all of it
  capabilities.npy  (n) int64, which of the names in the manifest; -1 for none
  places.npy        (n, 2) int64, which file of those in the manifest, and which line of it
"""

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.encode import NAMED_ROWS, Tally, encode
from etude.data.render import ChatTemplate, find_template
from etude.data.sources import describe, source_format, source_key
from etude.data.split import (
    Flags,
    Ints,
    Split,
    Texts,
    cut_examples,
    cut_samples,
    hold_out,
    number_texts,
)
from etude.data.tokenize import Tokenizer, load_tokenizer, token_bytes, tokenizer_key, train_tokenizer
from etude.errors import InputError, StorageError
from etude.recipe.schema import Recipe, Source

_FORMAT = 2
_TRAINING_BYTES = 64 << 20
_VERIFY_BYTES = 256 << 20
_SMALL_FILES = ("offsets", "hashes", "units", "sizes", "sources", "token_bytes")
_EXAMPLE_FILES = ("answers", "capabilities", "places")


@dataclass(frozen=True)
class Example:
    """A prompt that ends where the last answer of a sample begins, and that answer, whole, without its end token."""

    prompt_ids: list[int]
    prompt: str
    reference: str
    capability: str | None


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """The conversations of a split as questions with a reference, made from their tokens when asked for.

    rows, ends: (n,) the documents, and where in the tokens their samples end; answers: as in answers.npy.
    """

    rows: Ints
    ends: Ints
    tokens: npt.NDArray[Any]
    offsets: Ints
    answers: Ints
    capabilities: Ints
    names: list[str]
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row = int(self.rows[index])
        start = int(self.offsets[row])
        first, behind = self.answers[:, 0].searchsorted((start, int(self.ends[index]))).tolist()
        begin, end = self.answers[max(first, behind - 1)].tolist()
        prompt, capability = self.tokens[start:begin].tolist(), int(self.capabilities[row])
        return Example(
            prompt_ids=prompt,
            prompt=self.tokenizer.decode(prompt, skip_special=False),
            reference=self.tokenizer.decode(self.tokens[begin:end].tolist()),
            capability=self.names[capability] if capability >= 0 else None,
        )


@dataclass(frozen=True)
class Corpus:
    """The samples of a recipe, and what they were made from.

    `fingerprint` depends on what the texts, the split and the tokenizer are, not on where or when files were written.
    `examples` are the conversations of the validation split, in its order; `chat` makes a prompt of an instruction.
    """

    train: Split
    validation: Split | None
    tokenizer: Tokenizer
    fingerprint: str
    summary: dict[str, Any]
    chat: ChatTemplate
    examples: Sequence[Example] = ()


def prepare(recipe: Recipe, *, again: bool = False, tokenizer_folder: Path | None = None) -> Corpus:
    """Tokenise what a recipe names, unless that was done before, and split it.

    `again` builds anew what is there. One process builds; others that want the same wait for it. `tokenizer_folder`
    holds the tokenizer of a recipe that names none: that of its model.

    Raises: InputError if a source, the tokenizer or the prepared data cannot be used; StorageError if the disk fails.
    """
    started = time.monotonic()
    if recipe.tokenizer.from_ is None and recipe.tokenizer.train_vocab_size is None:
        assert tokenizer_folder is not None, "rules.py lets no recipe through that has neither tokenizer nor model"
        section = recipe.tokenizer.model_copy(update={"from_": str(tokenizer_folder)})
        recipe = recipe.model_copy(update={"tokenizer": section})
    key = _cache_key(recipe)
    folder = durable.cache_folder() / "prepared" / key
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


def _cache_key(recipe: Recipe) -> str:
    train, validation = _sources(recipe)
    key: list[Any] = [_FORMAT, [source_key(source) for source in train], [source_key(source) for source in validation]]
    if recipe.tokenizer.from_ is not None:
        key.append(tokenizer_key(recipe.tokenizer))
    else:  # trained on the documents that are not held out
        held_out = None if recipe.data.validation is not None else recipe.data.validation_ratio
        key.append([recipe.tokenizer.train_vocab_size, held_out])
    key.append([recipe.data.template, recipe.data.system, _texts_are_examples(recipe)])
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _sources(recipe: Recipe) -> tuple[list[Source], list[Source]]:
    explicit = recipe.data.validation
    return recipe.data.train, explicit if isinstance(explicit, list) else []


def _texts_are_examples(recipe: Recipe) -> bool:
    """Whether a text begins as the pretrained model expects it, instead of after an end token."""
    return recipe.model.from_ is not None and recipe.data.sample == "document"


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


def _build(recipe: Recipe, key: str, folder: Path) -> None:
    train, validation = _sources(recipe)
    temporary = folder.with_suffix(".tmp")
    scan: Tally | None = None
    if recipe.tokenizer.from_ is not None:
        tokenizer = load_tokenizer(recipe.tokenizer)
        _check_vocab(recipe, tokenizer.vocab_size)
    else:
        tokenizer, scan = _train_tokenizer(recipe)
    has_conversations = any(source_format(source).kind != "text" for source in [*train, *validation])
    are_examples = has_conversations or _texts_are_examples(recipe)
    if has_conversations:
        data, named = recipe.data, recipe.tokenizer.from_ or "of this run"
        chat = find_template(named, tokenizer, wanted=data.template, system=data.system)
        if chat.is_plain:  # what the model was trained with goes with it
            tokenizer = tokenizer.with_chat_template(chat.source)
    width = 2 if tokenizer.vocab_size <= 1 << 16 else 4
    tally = Tally()
    try:
        durable.remove_folder(temporary)
        durable.make_folder(temporary)
        encoded = encode([*train, *validation], tally, tokenizer, are_examples=are_examples, system=recipe.data.system)
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
        for name, values in (arrays | (tally.example_arrays() if are_examples else {})).items():
            written[f"{name}.npy"] = durable.write_file(temporary / f"{name}.npy", _npy(values))
        for name, content in tokenizer.given.items():
            written[f"given-{name}"] = durable.write_file(temporary / f"given-{name}", content)
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
                _source_summary(index, source, arrays, tally, is_train=index < len(train))
                for index, source in enumerate([*train, *validation])
            ],
            "given": list(tokenizer.given),
            "examples": are_examples,
            "paths": list(tally.paths) if are_examples else [],
            "capabilities": list(tally.capability_names),
            "conversations": _conversation_summary(chat, tokenizer, tally) if has_conversations else None,
        }
        durable.write_json(temporary / "manifest.json", {**manifest, "sha256": _digest(manifest)})
        durable.remove_folder(folder, first="manifest.json")
        durable.rename_folder(temporary, folder)
    finally:
        durable.remove_folder(temporary)


def _conversation_summary(chat: ChatTemplate, tokenizer: Tokenizer, tally: Tally) -> dict[str, Any]:
    """How conversations became tokens; counts are rows."""
    return {
        "template": "plain" if chat.is_plain else "chat template of the tokenizer",
        "special_tokens_read_as_text": tally.special,
        "answers_apart_from_prompts": tally.parted,
        "without_bos": tally.no_bos if tokenizer.bos_id is not None else 0,
    }


def _check_vocab(recipe: Recipe, vocab_size: int) -> None:
    rows = recipe.model.vocab_size
    if rows is not None and vocab_size > rows:
        raise InputError(
            f"model.vocab_size is {rows:,} but the tokenizer has {vocab_size:,} ids; leave it out, or use {vocab_size}"
        )


def _train_tokenizer(recipe: Recipe) -> tuple[Tokenizer, Tally]:
    """Train on what is not held out: a first reading finds out what that is, a second one trains."""
    assert recipe.tokenizer.train_vocab_size is not None
    train, validation = _sources(recipe)
    scan = Tally()
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
        for index, document in enumerate(Tally().read(train)):
            if index < len(used) and used[index]:
                kept = len(document.text) - math.ceil(recipe.data.validation_ratio * len(document.text))
                yield document.text[:kept] if cut[index] else document.text

    return train_tokenizer(texts(), recipe.tokenizer.train_vocab_size), scan


def _npy(values: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


def _source_summary(
    index: int, source: Source, arrays: dict[str, npt.NDArray[Any]], tally: Tally, *, is_train: bool
) -> dict[str, Any]:
    mine = arrays["sources"] == index
    documents, blank = int(mine.sum()), tally.blanks[index]
    named = {"blank_rows": tally.blank_rows[index]} if source_format(source).kind != "text" else {}
    return {
        "name": source.source or source.path,
        "use": "train" if is_train else "validation",
        "found": describe(source, documents + blank),
        "documents": documents,
        "blank": blank,
        **named,
        "bytes": int(arrays["sizes"][mine].sum()),
        "tokens": int(np.diff(arrays["offsets"])[mine].sum()),
    }


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _choose(recipe: Recipe, arrays: dict[str, npt.NDArray[Any]], *, are_examples: bool = False) -> tuple[Flags, Flags]:
    """Which documents are held out as a whole, and which are cut by position: both (n,).

    A document is cut if it is all that its source has and no other belongs with it; an example is not.
    """
    sources, units = arrays["sources"], arrays["units"]
    held, cut = np.zeros(len(units), dtype=np.bool_), np.zeros(len(units), dtype=np.bool_)
    if isinstance(recipe.data.validation, list):
        return sources >= len(recipe.data.train), cut
    if recipe.data.validation == "none":
        return held, cut
    if not are_examples:
        cut = (np.bincount(sources)[sources] == 1) & (np.bincount(units)[units] == 1)
    rest = ~cut
    if not cut.any() or len(np.unique(units[rest])) > 1:
        held[rest] = hold_out(arrays["hashes"][rest], units[rest], recipe.data.validation_ratio)
    return held, cut


def _open(recipe: Recipe, folder: Path) -> Corpus:
    """Check the files of a prepared folder and split what they hold."""
    manifest = _verify(folder)
    _check_vocab(recipe, manifest["vocab_size"])
    are_examples = manifest["examples"]
    names = (*_SMALL_FILES, *(_EXAMPLE_FILES if are_examples else ()))
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}
    width = manifest["token_width_bytes"]
    tokens = np.asarray(np.memmap(folder / "tokens.bin", dtype=f"<u{width}", mode="r"))
    each = arrays["token_bytes"] if len(arrays["token_bytes"]) else None
    texts = Texts(tokens, arrays["offsets"], arrays["sizes"], each, manifest["eos_id"])
    held, cut = _choose(recipe, arrays, are_examples=are_examples)
    given = {name: (folder / f"given-{name}").read_bytes() for name in manifest["given"]}
    tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"), manifest["eos_token"], given)
    examples: Sequence[Example] = ()
    left: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
    if are_examples:
        train, left["train"], _ = _cut_examples(recipe, texts, np.flatnonzero(~held), arrays, manifest, "train")
        validation, left["validation"], rows = _cut_examples(
            recipe, texts, np.flatnonzero(held), arrays, manifest, "validation"
        )
        columns = arrays["offsets"], arrays["answers"], arrays["capabilities"]
        examples = Examples(*rows, tokens, *columns, manifest["capabilities"], tokenizer)
    else:
        train, validation = _cut_samples(recipe, texts, held, cut)
    if recipe.data.validation != "none" and not len(validation):
        raise InputError(
            f"data.validation: {len(tokens) - held.size} tokens are too few to hold out a share of "
            f'{recipe.data.validation_ratio}; give more text, or set data.validation = "none"'
        )
    same = number_texts(arrays["hashes"])
    summary = {
        "sources": manifest["sources"],
        **({"conversations": manifest["conversations"]} if manifest["conversations"] else {}),
        "train": _split_summary(train) | left["train"],
        "validation": _split_summary(validation) | left["validation"] if len(validation) else None,
        "overlap": int(np.isin(same[held], same[~held]).sum()),
        "vocab_size": manifest["vocab_size"],
        "unknown_ratio": manifest["unknown_tokens"] / len(tokens),
        "bytes_per_token": int(arrays["sizes"].sum()) / max(len(tokens) - held.size, 1),
    }
    made: list[str] = []
    if are_examples:
        made = [manifest["files"][name]["sha256"] for name in ("tokens.bin", "answers.npy")]
        made.append("answers" if recipe.data.answers_only else "all")
    return Corpus(
        train=train,
        validation=validation if len(validation) else None,
        tokenizer=tokenizer,
        fingerprint=_fingerprint([manifest["tokenizer"], *made], arrays["hashes"], train, validation),
        summary=summary,
        chat=ChatTemplate(tokenizer, tokenizer.chat_template, system=recipe.data.system),
        examples=examples,
    )


def _cut_samples(recipe: Recipe, texts: Texts, held: Flags, cut: Flags) -> tuple[Split, Split]:
    """The samples of both splits, of texts end to end or of a text each."""
    starts, ends = texts.offsets[:-1], texts.offsets[1:]
    middles = ends - 1 - np.ceil(recipe.data.validation_ratio * (ends - starts - 1)).astype(np.int64)
    middles = np.where(middles > starts, middles, ends)  # too short to be cut
    # The parts of cut documents come last, as no end token separates them from what follows.
    whole = ~held & ~cut
    mode, seq_len = recipe.data.sample, recipe.train.seq_len
    train = cut_samples(texts, np.r_[starts[whole], starts[cut]], np.r_[ends[whole], middles[cut]], mode, seq_len)
    validation = cut_samples(texts, np.r_[starts[held], middles[cut]], np.r_[ends[held], ends[cut]], mode, seq_len)
    return train, validation


def _cut_examples(
    recipe: Recipe, texts: Texts, rows: Ints, arrays: dict[str, npt.NDArray[Any]], manifest: dict[str, Any], use: str
) -> tuple[Split, dict[str, Any], tuple[Ints, Ints]]:
    """The samples of one split, what is to be said about rows that are none, and of the conversations among the samples
    the rows and where they end.

    Raises: InputError if rows are too long and that is to be refused, or if nothing is left to learn.
    """
    data, seq_len = recipe.data, recipe.train.seq_len
    answers = arrays["answers"]
    split, left = cut_examples(
        texts, rows, answers, seq_len, answers_only=data.answers_only, drop=data.too_long == "drop"
    )

    def named(flags: Flags) -> list[str]:
        places = arrays["places"][rows[flags][:NAMED_ROWS]].tolist()
        return [f"{manifest['paths'][path]}:{line}" if line else manifest["paths"][path] for path, line in places]

    def count(flags: Flags) -> str:
        names = f" ({', '.join(named(flags)[:3])}{' ...' if flags.sum() > 3 else ''})"
        return f"{int(flags.sum()):,}{names if flags.any() else ''}"

    is_long = left.dropped | left.cut | left.cut_away
    if data.too_long == "refuse" and is_long.any():
        raise InputError(
            f"rows with more than train.seq_len {seq_len:,} tokens: {count(is_long)}; "
            'raise it, or set data.too_long to "cut" or "drop"'
        )
    if len(rows) and not len(split):
        raise InputError(
            f"data.{use} has nothing to score: none of {len(rows):,} rows has an answer within train.seq_len {seq_len} "
            f"(cut away: {count(left.cut_away)}; dropped: {count(left.dropped)}; the longest row has "
            f"{int(np.diff(texts.offsets)[rows].max()):,} tokens); raise it"
        )
    said = {
        name: value
        for name, flags in (("dropped", left.dropped), ("cut_away", left.cut_away))
        for name, value in ((name, int(flags.sum())), (f"{name}_rows", named(flags)))
    }
    kept = rows[left.kept]
    is_conversation = answers[answers[:, 0].searchsorted(texts.offsets[kept]), 0] > texts.offsets[kept]
    return split, said, (kept[is_conversation], split.ends[is_conversation])


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


def _fingerprint(made: list[str], hashes: npt.NDArray[np.uint8], *splits: Split) -> str:
    digest = hashlib.sha256("".join(made).encode())
    digest.update(hashes.tobytes())
    for split in splits:
        digest.update(np.stack([split.starts, split.ends]).astype("<i8").tobytes() + b"split")
    return digest.hexdigest()
