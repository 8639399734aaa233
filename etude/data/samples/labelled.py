"""Texts, or pairs of them, with labels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.cache import VERIFY_BYTES, Built
from etude.data.encode import batch_documents
from etude.data.labels import Labels, number_labels
from etude.data.lexer import IDENTIFIER, KINDS, LEVELS, code_of
from etude.data.rows import place_of
from etude.data.samples.sample import NO_TARGET, Flags, Ints, Sample, Spans, Stretches, Texts
from etude.data.samples.shape import Arrays, Building, Columns, Part, Prepared, Shape, read_seconds
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Labelled(Stretches):
    """The target of a sample is its row of `classes`.

    classes  (n, k) uint8, 1 where a label holds
    seconds  (n,) where the second text begins
    code     (tokens, 4), kind of each prepared token as code, if the model reads it
    """

    classes: npt.NDArray[np.uint8]
    seconds: Ints
    code: npt.NDArray[Any] | None = None

    def sample(self, index: int, epoch: int = 0) -> Sample:
        start, end = self.place(index)
        tokens = self.spans.tokens[start:end].astype(np.int64)
        return Sample(
            tokens,
            np.full(len(tokens), NO_TARGET, dtype=np.int64),
            np.zeros(len(tokens), dtype=np.int64),
            np.arange(len(tokens), dtype=np.int64),
            self.classes[index],
            int(self.seconds[index]),
            code=None if self.code is None else self.code[start:end].astype(np.int64),
        )


def take_labelled(texts: Texts, rows: Ints, arrays: Arrays, seq_len: int, *, truncated: int = 0) -> Labelled:
    """Documents `rows` as they are; targets are documents. arrays: with labels, seconds and perhaps code."""
    spans = Spans(
        tokens=texts.tokens, starts=texts.offsets[rows], ends=texts.offsets[rows + 1], documents=len(rows),
        targets=len(rows), bytes=int(texts.sizes[rows].sum()), truncated=truncated,
    )  # fmt: skip
    return Labelled(spans, seq_len, arrays["labels"][rows], arrays["seconds"][rows], arrays.get("code"))


class LabelledShape(Shape):
    """Each text, or pair, as the tokenizer joins them for a model, cut to train.seq_len tokens."""

    name = "labelled"
    files = ("tokens.bin", "labels.npy")
    has_labels = True

    def encode(
        self, recipe: Recipe, documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, today: str
    ) -> Iterator[Ints]:
        with_code = recipe.model.wants_code
        for batch in batch_documents(documents):
            texts = [(document.text, document.pair) for document in batch]
            encoded = tokenizer.encode_joined(texts, recipe.train.seq_len, with_spans=with_code)
            for (text, pair), (ids, second, is_cut, spans) in zip(texts, encoded):
                given = [text] if pair is None else [text, pair]
                if spans is not None:
                    tally.code += code_of(given, spans).astype("<u2").tobytes()
                tally.add(len(ids), [], has_special=tally.find_special(given, tokenizer))
                tally.seconds.append(second)
                tally.cuts.append(is_cut)
            yield np.concatenate([ids for ids, *_ in encoded])

    def finish(self, building: Building) -> Columns:
        """Raises: as `number_labels`."""
        tally = building.tally
        labels, held = _number(building)
        arrays: Arrays = {
            **tally.example_arrays(),
            "seconds": np.array(tally.seconds, dtype=np.int64),
            "labels": held,
            "cuts": np.frombuffer(tally.cuts, dtype=np.uint8),
        }
        if tally.code:
            arrays["code"] = np.frombuffer(tally.code, dtype="<u2").reshape(-1, 4)
        return Columns(arrays=arrays, labels=labels)

    def read(self, recipe: Recipe, built: Built, arrays: Arrays) -> None:
        super().read(recipe, built, arrays)
        read_seconds(built, arrays)
        count, names = len(arrays["sources"]), built.manifest["labels"]["names"]
        arrays["labels"] = built.array("labels", np.uint8, (count, len(names)), most=1)
        arrays["cuts"] = built.array("cuts", np.uint8, (count,), most=1)
        if recipe.model.wants_code:
            code = built.array("code", np.uint16, (int(arrays["offsets"][-1]), 4), is_mapped=True)
            highest = [len(KINDS), LEVELS, LEVELS]
            if code.nbytes <= VERIFY_BYTES and (code[:, :IDENTIFIER].max(axis=0) >= highest).any():
                raise built.damaged("code.npy holds what is no code")
            arrays["code"] = code

    def take(self, recipe: Recipe, prepared: Prepared, use: str, rows: Ints, cut: Flags) -> Part:
        """Samples of the rows; those that were cut to train.seq_len may be dropped."""
        arrays, seq_len = prepared.arrays, recipe.train.seq_len
        # Of a text that was cut it is only known that it was longer.
        lengths = np.diff(prepared.texts.offsets)[rows] + arrays["cuts"][rows]
        is_long, limit = arrays["cuts"][rows] > 0, f"train.seq_len {seq_len:,}"
        rows, dropped = prepared.keep_short(use, recipe.data.too_long, rows, is_long, limit)
        truncated = int(arrays["cuts"][rows].sum())
        split = take_labelled(prepared.texts, rows, arrays, seq_len, truncated=truncated)
        counts = zip(prepared.manifest["labels"]["names"], split.classes.sum(axis=0).tolist())
        return Part(
            split=split,
            lengths=lengths,
            summary={"labels": ", ".join(f"{name} {number:,}" for name, number in counts), **dropped},
            capabilities=[prepared.capability(row) for row in rows.tolist()],
            ids=prepared.ids(rows) if use != "train" else [],
        )


def _number(building: Building) -> tuple[Labels, npt.NDArray[np.uint8]]:
    """The labels of the training sources, and those of each document, (n, k)."""
    tally, sources = building.tally, building.sources
    from_train = np.array([use == "train" for use, _ in sources])[building.arrays["sources"]]
    paths, places = list(tally.paths), np.array(tally.places, dtype=np.int64).reshape(-1, 2)
    return number_labels(
        [json.loads(value) for value in tally.label_values],
        np.array(tally.labels, dtype=np.int64),
        from_train,
        fields=" or ".join(dict.fromkeys(repr(source.label) for use, source in sources if use == "train")),
        name_row=lambda row: place_of(paths[places[row, 0]], int(places[row, 1])),
    )
