"""Prepared data: documents tokenised once into memory-mapped files, which runs share and split by arithmetic.

`$ETUDE_CACHE/prepared/<key>/` (default `~/.cache/etude`) holds, of n documents,
  tokens.bin        ids of every document, each followed by the end token; little-endian uint16 or uint32.
                    Of a conversation, those of the text that the chat template makes of it
  offsets.npy       (n + 1) int64, where each document starts in tokens.bin
  hashes.npy        (n, 16) uint8, SHA-256 of each text, cut to 128 bits
  prompts.npy       (n) int64, equal for texts that differ in white space only; of a pair the source, of a
                    conversation what comes before the last answer
  units.npy         (n) int64, equal for documents that share a group, a text or a prompt
  sizes.npy         (n) int64, bytes of each text in UTF-8
  sources.npy       (n) int64, which source of the recipe; [[data.validation]] follows [[data.train]]
  token_bytes.npy   (vocabulary) int64, bytes each id stands for; empty if the tokenizer is not byte-level
  tokenizer.json    given-* (the files that the tokenizer came as)
  manifest.json     last: sizes, SHA-256, counts
where a loss weighs tokens by what they are as code,
  kinds.bin         (tokens) uint8, the kind of each
where documents are examples,
  answers.npy       (m, 2) int64, where what is learnt begins and ends in tokens.bin; of a text all of it
  capabilities.npy  (n) int64, which of the names in the manifest; -1 for none
  places.npy        (n, 2) int64, which file of those in the manifest, and the place in it, as of `place_of`
where texts are labelled,
  labels.npy        (n, k) uint8, 1 where a label holds; their names are in the manifest
  seconds.npy       (n) int64, where the second text of a pair begins, counted in tokens
  cuts.npy          (n) uint8, 1 where a text was longer than train.seq_len, and was cut
  code.npy          (tokens, 4) uint16, what each token is as code; only for a model with a code bias
and where documents are sources with targets,
  seconds.npy       (n) int64, where the target begins, counted in tokens
  references.bin    UTF-8 of the targets end to end
  reference_places.npy  (n + 1) int64, where each begins there
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from etude import durable
from etude.data.bpe import train_tokenizer
from etude.data.cache import Files, build_once, open_built, to_npy
from etude.data.corpus import Corpus, choose_uses, open_prepared
from etude.data.gate import Gate, enforce, examine, is_needed
from etude.data.kinds import find_kinds
from etude.data.layout import look_through
from etude.data.listing import USES, list_sources
from etude.data.page import describe_gate
from etude.data.render import ChatTemplate, find_template
from etude.data.samples.sample import Ints
from etude.data.samples.shape import Arrays, Building
from etude.data.samples.shapes import choose_shape, has_conversations, texts_are_examples
from etude.data.sources import Document, large_files, source_key
from etude.data.spellings import token_bytes, token_spellings
from etude.data.stored import MANIFEST
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer, tells_date, tokenizer_key
from etude.errors import InputError
from etude.recipe.data import Source
from etude.recipe.schema import Recipe

_FORMAT = 13
_NAMED_FILES = 3
_CODE_FORMAT = 1  # of what the lexer says
_TRAINING_BYTES = 64 << 20
_EXAMPLES = 3


def prepare(
    recipe: Recipe, *, again: bool = False, tokenizer_folder: Path | None = None, today: str | None = None
) -> Corpus:
    """Tokenise what a recipe names, unless that was done before, and split it.

    `again` builds anew what is there. One process builds; others that want the same wait for it.
    `tokenizer_folder` holds the tokenizer of a recipe that names none: that of its model. `today`
    (YYYY-MM-DD; by default it is) is the day that a chat template may write; another day makes other data.

    Raises: InputError if a source, the tokenizer or the prepared data cannot be used; StorageError if the
    disk fails.
    """
    started = time.monotonic()
    if recipe.tokenizer.from_ is None and recipe.tokenizer.train_vocab_size is None:
        assert tokenizer_folder is not None, "rules.py asks for a tokenizer or a model"
        section = recipe.tokenizer.model_copy(update={"from_": str(tokenizer_folder)})
        recipe = recipe.model_copy(update={"tokenizer": section})
    gate = examine(recipe, again=again) if is_needed(recipe) else None
    if gate is not None:
        enforce(gate)
    day = today or date.today().isoformat()
    key = _cache_key(recipe, gate, day)
    folder, is_new = build_once(
        "prepared", key, lambda temporary: _build(recipe, gate, key, day, temporary), again=again
    )
    corpus = open_prepared(recipe, folder, day)
    _check_vocab(recipe, corpus.summary["vocab_size"])
    if gate is not None:
        corpus.summary.update(describe_gate(gate, corpus.uses))
    corpus.summary.update(folder=str(folder), cached=not is_new, seconds=round(time.monotonic() - started, 3))
    return corpus


def check_whole(recipe: Recipe, corpus: Corpus) -> None:
    """Read very large sources whole. Raises: InputError if one has changed though size and time say no."""
    prepared = open_built(Path(corpus.summary["folder"]), MANIFEST).manifest["contents"]
    for path, wanted in prepared.items():
        if durable.sha256_file(Path(path)) != wanted:
            raise InputError(
                f"{path} has changed since it was prepared though its size and time have not; bring it back, "
                f"or run etude prepare RECIPE --again for {recipe.name}"
            )


def _cache_key(recipe: Recipe, gate: Gate | None, day: str) -> str:
    key: list[Any] = [_FORMAT, [[use, source_key(source)] for use, source in list_sources(recipe)]]
    if recipe.tokenizer.from_ is not None:
        key.append(tokenizer_key(recipe.tokenizer))
    else:  # trained on the documents that are not held out
        held_out = None if recipe.data.validation is not None else recipe.data.validation_ratio
        key.append([recipe.tokenizer.train_vocab_size, held_out])
    key.append([recipe.data.template, recipe.data.system, texts_are_examples(recipe)])
    key.append(recipe.train.objective)
    key += [getattr(recipe.train, name) for name in recipe.kind.tokens_depend_on]
    if recipe.model.wants_code:
        key.append(["code", _CODE_FORMAT])
    if recipe.loss.token_weights:
        key.append(["kinds", _CODE_FORMAT])
    if _tells_date(recipe):
        key.append(["day", day])
    if gate is not None:
        key.append([gate.key, hashlib.sha256(gate.removed.tobytes()).hexdigest()])
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _tells_date(recipe: Recipe) -> bool:
    """True if the day may stand in what conversations become."""
    if recipe.tokenizer.from_ is None or recipe.data.template == "plain" or not tells_date(recipe.tokenizer):
        return False
    return recipe.kind.shape is None and has_conversations(recipe)


def _build(
    recipe: Recipe, gate: Gate | None, key: str, day: str, folder: Path
) -> tuple[Files, dict[str, Any]]:
    """Write the files of a folder; these, and the content of its manifest."""
    shape, sources = choose_shape(recipe), list_sources(recipe)
    tokenizer, chat, trained_on = _choose_tokenizer(recipe, gate, renders=shape.renders)
    spellings = token_spellings(tokenizer) if recipe.loss.token_weights else None
    width = 2 if tokenizer.vocab_size <= 1 << 16 else 4
    tally = Tally()
    documents = _read(recipe, gate, tally)
    if tokenizer.can_lose_text:
        documents = tally.count_lost(documents, tokenizer)
    encoded = _checked(shape.encode(recipe, documents, tally, tokenizer, day), tokenizer, tally)
    files = {
        "tokens.bin": durable.write_file(
            folder / "tokens.bin", (ids.astype(f"<u{width}").data for ids in encoded)
        ),
        "tokenizer.json": durable.write_file(folder / "tokenizer.json", tokenizer.to_json().encode()),
    }
    if _cache_key(recipe, gate, day) != key or trained_on not in (None, tally.hashes):
        raise InputError("the data changed while it was read; run the same command again once it is at rest")
    arrays = tally.arrays()
    building = Building(
        folder=folder, sources=sources, tally=tally, arrays=arrays,
        documents=lambda: _read(recipe, gate, Tally()),
    )  # fmt: skip
    columns = shape.finish(building)
    files |= columns.files
    if spellings is not None:
        written = np.memmap(folder / "tokens.bin", dtype=f"<u{width}", mode="r")
        is_answer = np.broadcast_to(columns.is_answer, len(columns.code))
        kinds = find_kinds(written, columns.code, is_answer, spellings)
        files["kinds.bin"] = durable.write_file(folder / "kinds.bin", kinds)
    sizes = token_bytes(tokenizer)
    ours = arrays | {"token_bytes": np.zeros(0, dtype=np.int64) if sizes is None else sizes}
    for name, values in (ours | columns.arrays).items():
        files[f"{name}.npy"] = durable.write_file(folder / f"{name}.npy", to_npy(values))
    for name, content in tokenizer.given.items():
        files[f"given-{name}"] = durable.write_file(folder / f"given-{name}", content)
    large = large_files(source for _, source in sources)
    return files, {
        "format": _FORMAT,
        "kind": shape.name,
        "token_width_bytes": width,
        **_describe_tokenizer(tokenizer, tally),
        "sources": [_describe_source(at, *source, arrays, tally) for at, source in enumerate(sources)],
        "contents": {str(path): durable.sha256_file(path) for path in large},
        "shared_groups": _find_shared_groups(sources, arrays, tally),
        "given": list(tokenizer.given),
        "labels": None if columns.labels is None else asdict(columns.labels),
        "paths": list(tally.paths) if "places" in columns.arrays else [],
        "capabilities": list(tally.capability_names),
        "conversations": None if chat is None else _describe_conversations(chat, tally),
    }


def _choose_tokenizer(
    recipe: Recipe, gate: Gate | None, *, renders: bool
) -> tuple[Tokenizer, ChatTemplate | None, bytearray | None]:
    """The tokenizer, the chat template of a shape that renders, and the hashes of texts it was trained on."""
    trained_on: bytearray | None = None
    if recipe.tokenizer.from_ is not None:
        tokenizer = load_tokenizer(recipe.tokenizer)
        _check_vocab(recipe, tokenizer.vocab_size)
    else:
        tokenizer, trained_on = _train_tokenizer(recipe, gate)
    if not renders or not has_conversations(recipe):
        return tokenizer, None, trained_on
    named = recipe.tokenizer.from_ or "of this run"
    chat = find_template(named, tokenizer, wanted=recipe.data.template, system=recipe.data.system)
    if chat.is_plain:  # it stays with the tokenizer of the trained model
        tokenizer = tokenizer.with_chat_template(chat.source)
    return tokenizer, chat, trained_on


def _checked(encoded: Iterator[Ints], tokenizer: Tokenizer, tally: Tally) -> Iterator[Ints]:
    """The same ids, of which those of unknown text are counted."""
    for ids in encoded:
        assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size, "an id beyond the vocabulary"
        tally.unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
        yield ids


def _describe_tokenizer(tokenizer: Tokenizer, tally: Tally) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocab_size,
        "eos_token": tokenizer.eos_token,
        "eos_id": tokenizer.eos_id,
        "end_ids": tally.end_ids(tokenizer.eos_id),
        "tokenizer": tokenizer.fingerprint,
        "unknown_tokens": tally.unknown,
        "lost_bytes": tally.lost,
    }


def _find_shared_groups(sources: list[tuple[str, Source]], arrays: Arrays, tally: Tally) -> dict[str, Any]:
    """The groups of group_by in more than one set; without it, two globs of one folder are to share it."""
    by_field = np.array([-1 if source.group_by is None else USES.index(use) for use, source in sources])
    shared = tally.shared_groups(by_field[arrays["sources"]])
    return {"count": len(shared), "first": shared[:_EXAMPLES]}


def _read(recipe: Recipe, gate: Gate | None, tally: Tally) -> Iterator[Document]:
    """The documents of all sources that the gate lets through, noted in `tally`."""
    sources = [source for _, source in list_sources(recipe)]
    undecodable = recipe.data.clean.undecodable != "off"
    return tally.read(sources, undecodable=undecodable, removed=None if gate is None else gate.removed)


def _describe_conversations(chat: ChatTemplate, tally: Tally) -> dict[str, Any]:
    template = "plain" if chat.is_plain else "chat template of the tokenizer"
    return {"template": template, **tally.conversations}


def _check_vocab(recipe: Recipe, vocab_size: int) -> None:
    rows = recipe.model.vocab_size
    if rows is not None and vocab_size > rows:
        raise InputError(
            f"model.vocab_size is {rows:,} but the tokenizer has {vocab_size:,} ids; leave it out, or use "
            f"{vocab_size}"
        )


def _train_tokenizer(recipe: Recipe, gate: Gate | None) -> tuple[Tokenizer, bytearray]:
    """Train on texts that are not held out, which a first reading finds; their hashes come too."""
    assert recipe.tokenizer.train_vocab_size is not None
    scan = Tally()
    for _ in _read(recipe, gate, scan):
        pass
    arrays = scan.arrays()
    uses, cut = choose_uses(recipe, arrays)
    held = uses > 0
    # Of more text than a vocabulary can learn from, the documents with the lowest tails of hashes: the heads
    # decide the split.
    share = min(_TRAINING_BYTES / max(int(arrays["sizes"][~held].sum()), 1), 1.0)
    tails = np.ascontiguousarray(arrays["hashes"][:, 8:]).view(">u8")[:, 0] / 2.0**64
    used = ~held & (tails <= share)
    if not used.any():
        used = ~held

    def texts() -> Iterator[str]:
        for index, document in enumerate(_read(recipe, gate, Tally())):
            if index < len(used) and used[index]:
                text = document.content
                kept = len(text) - math.ceil(recipe.data.validation_ratio * len(text))
                yield text[:kept] if cut[index] else text

    size, is_masked = recipe.tokenizer.train_vocab_size, recipe.kind.hides_tokens
    return train_tokenizer(texts(), size, is_masked=is_masked), scan.hashes


def _describe_source(number: int, use: str, source: Source, arrays: Arrays, tally: Tally) -> dict[str, Any]:
    mine, notes = arrays["sources"] == number, tally.notes[number]
    documents, layout = int(mine.sum()), look_through(source)
    named: dict[str, Any] = {}
    if layout.form.kind != "text":
        named["blank_rows"] = notes.blank_rows
    if notes.unread:
        named["unread_columns"] = [
            column if count == notes.found else f"{column} ({count:,} rows)"
            for column, count in notes.unread.items()
        ]
    if notes.no_values:
        rows = notes.no_values.items()
        named["cells_without_value"] = [f"{column} ({count:,} rows)" for column, count in rows]
    if wholes := layout.rows_as_texts:
        named["files_of_rows_read_as_texts"] = len(wholes)
        named["such_files"] = [str(path) for path in wholes[:_NAMED_FILES]]
    if special := int(mine[np.array(tally.holding_special, dtype=np.int64)].sum()):
        named["special_tokens_read_as_text"] = special
        named["such_as"] = list(tally.special_tokens)
    return {
        "name": source.source or source.path,
        "use": use,
        "found": layout.describe(notes.found),
        "documents": documents,
        "blank": notes.blank,
        **({"removed": removed} if (removed := notes.found - documents - notes.blank) else {}),
        **named,
        "bytes": int(arrays["sizes"][mine].sum()),
        "tokens": int(np.diff(arrays["offsets"])[mine].sum()),
    }
