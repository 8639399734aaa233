"""Sources with targets, for encoder-decoders."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.cache import Built, require_whole
from etude.data.encode import batch_documents
from etude.data.examples import Example, Examples
from etude.data.samples.sample import Flags, Ints, Sample, Spans, Stretches, Texts, distinct
from etude.data.samples.shape import Arrays, Building, Columns, Part, Prepared, Shape, read_seconds
from etude.data.samples.weighted import weigh_tokens
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.data.turns import EXTRA_CONTENTS, is_unlearnt, list_fields
from etude.errors import InputError
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Pairs(Stretches):
    """A span is a source and, from `seconds` (n,) on, a target.

    Of more than seq_len and target_len tokens the last, which ends a text, stays, and those before it are
    cut off.
    """

    target_len: int
    seconds: Ints

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a source."""
        return float(np.minimum(distinct(self.seconds), self.seq_len).mean()) if len(self) else 0.0

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        start, end = self.place(index)
        return _cut_end(values[start + int(self.seconds[index]) : end], self.target_len)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        (start, _), tokens = self.place(index), self.spans.tokens
        source = _cut_end(tokens[start : start + int(self.seconds[index])].astype(np.int64), self.seq_len)
        target = self.at_labels(index, tokens).astype(np.int64)
        places = np.arange(len(source), dtype=np.int64)
        return Sample(source, target, np.zeros_like(source), places, is_pair=True)


def take_pairs(
    texts: Texts, rows: Ints, seconds: Ints, seq_len: int, target_len: int, *, drop: bool
) -> tuple[Pairs, Flags]:
    """Documents `rows` as sources and targets, and flags (n,) of those too long, so cut or dropped."""
    starts, ends, seconds = texts.offsets[rows], texts.offsets[rows + 1], seconds[rows]
    written = ends - starts - seconds
    too_long = (seconds > seq_len) | (written > target_len)
    kept = ~too_long | (not drop)
    starts, ends, seconds, written = starts[kept], ends[kept], seconds[kept], written[kept]
    spans = Spans(
        tokens=texts.tokens, starts=starts, ends=ends, documents=len(starts),
        targets=int(np.minimum(written, target_len).sum()), bytes=texts.count_bytes(starts + seconds, ends),
        truncated=int(too_long[kept].sum()),
    )  # fmt: skip
    return Pairs(spans, seq_len, target_len, seconds), too_long


class PairShape(Shape):
    """Each source, and after it its target, both as the tokenizer surrounds them, whole."""

    name = "pairs"
    files = ("tokens.bin", "seconds.npy", "references.bin")

    def encode(
        self, recipe: Recipe, documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, today: str
    ) -> Iterator[Ints]:
        """As a target that begins with the end token would be empty, none does."""
        for batch in batch_documents(documents):
            pairs = [take_sides(document) for document in batch]
            sources, targets = (
                [each[0] for each in tokenizer.encode_joined([(pair[side], None) for pair in pairs])]
                for side in (0, 1)
            )
            targets = [ids[1:] if ids[0] == tokenizer.eos_id else ids for ids in targets]
            for document, source, target, pair in zip(batch, sources, targets, pairs):
                unread = dict.fromkeys(name for each in document.messages or () for name in list_fields(each))
                has_special = tally.find_special(pair, tokenizer)
                tally.add(len(source) + len(target), [], has_special=has_special, unread=unread)
                tally.seconds.append(len(source))
            yield np.concatenate([ids for pair in zip(sources, targets) for ids in pair])

    def finish(self, building: Building) -> Columns:
        """The targets are read again: scores compare with their texts, which ids may not give back."""
        tally, places = building.tally, array("q", [0])

        def references() -> Iterator[bytes]:
            for document in building.documents():
                target = take_sides(document)[1].encode()
                places.append(places[-1] + len(target))
                yield target

        written = durable.write_file(building.folder / "references.bin", references())
        seconds, offsets = np.array(tally.seconds, dtype=np.int64), building.arrays["offsets"]
        return Columns(
            arrays=tally.example_arrays()
            | {"seconds": seconds, "reference_places": np.array(places, dtype=np.int64)},
            files={"references.bin": written},
            code=np.stack([offsets[:-1] + seconds, offsets[1:]], axis=1),
        )

    def read(self, recipe: Recipe, built: Built, arrays: Arrays) -> None:
        super().read(recipe, built, arrays)
        read_seconds(built, arrays)
        size = built.manifest["files"].get("references.bin", {"size": 0})["size"]
        arrays["reference_places"] = built.offsets("reference_places", len(arrays["offsets"]), size)

    def take(self, recipe: Recipe, prepared: Prepared, use: str, rows: Ints, cut: Flags) -> Part:
        """Samples of the rows; those with a side that is too long may be dropped."""
        arrays, too_long = prepared.arrays, recipe.data.too_long
        longest = recipe.train.seq_len, recipe.train.target_len or recipe.train.seq_len
        drop = too_long == "drop"
        samples, is_long = take_pairs(prepared.texts, rows, arrays["seconds"], *longest, drop=drop)
        limits = (
            f"train.seq_len {longest[0]:,} in the source or train.target_len {longest[1]:,} in the target"
        )
        kept, dropped = prepared.keep_short(use, too_long, rows, is_long, limits)
        if too_long == "cut" and is_long.any() and prepared.tokenizer.truncation_side == "left":
            raise InputError(
                "the tokenizer cuts on the left (truncation_side), sources and targets are cut on the right "
                f"here, and {int(is_long.sum()):,} rows have more tokens than {limits}; raise them, or set "
                "data.too_long to drop"
            )
        return Part(
            split=weigh_tokens(samples, recipe, prepared.built, use),
            lengths=arrays["seconds"][rows],
            summary=dropped,
            examples=_ask(prepared, samples, kept),
            ids=prepared.ids(kept) if use != "train" else [],
        )

    def settings(self, recipe: Recipe) -> list[str]:
        return [f"{recipe.train.seq_len} {recipe.train.target_len}"]


def take_sides(document: Document) -> tuple[str, str]:
    """Source and target of a document; of a conversation, the last answer is that. Raises: InputError."""
    if document.pair is not None:
        return document.text, document.pair
    if document.messages is not None and is_unlearnt(document.messages[-1]):
        raise InputError(f"{document.name} marks its last answer as not to be learnt; leave the row out")
    if document.messages is None or document.messages[-1]["role"] != "assistant":
        raise InputError(
            f'{document.name} has no target; name the JSONL field that holds it, as target = "target"'
        )
    for number, message in enumerate(document.messages, 1):
        if extra := [name for name in list_fields(message) if name in EXTRA_CONTENTS]:
            raise InputError(
                f"{document.name} has {extra[0]!r} in message {number}, which an encoder-decoder does not "
                "read; put it into the content, or remove it"
            )
    before = [message["content"] for message in document.messages[:-1]]
    return "\n\n".join(before), document.messages[-1]["content"]


def _ask(prepared: Prepared, samples: Pairs, rows: Ints) -> Examples:
    """The sources of documents `rows`, cut as their samples are, each with the whole text of its target."""
    texts = prepared.built.numbers("references.bin", np.uint8)  # UTF-8, end to end
    places = prepared.arrays["reference_places"]

    def make(index: int) -> Example:
        require_whole(texts)
        row, source = int(rows[index]), samples.sample(index).tokens.tolist()
        try:
            reference = texts[places[row] : places[row + 1]].tobytes().decode()
        except UnicodeDecodeError:
            raise prepared.built.damaged("references.bin is not UTF-8 text") from None
        prompt = prepared.tokenizer.decode(source)
        return Example(source, prompt, reference, prepared.capability(row))

    return Examples(len(rows), make)


def _cut_end(ids: npt.NDArray[Any], longest: int) -> npt.NDArray[Any]:
    return ids if len(ids) <= longest else np.r_[ids[: longest - 1], ids[-1:]]
