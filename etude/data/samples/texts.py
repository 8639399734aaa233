"""Texts without answers: rows end to end, or one sample a document."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.cache import Built
from etude.data.encode import encode_texts
from etude.data.samples.hidden import hide_tokens
from etude.data.samples.sample import Flags, Ints, Sample, Spans, Stretches, Texts, predict_next
from etude.data.samples.shape import Arrays, Building, Columns, Part, Prepared, Shape
from etude.data.samples.weighted import weigh_tokens
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Rows:
    """Spans end to end; sample i has the seq_len labels from i * seq_len on, so each token is a target once.

    The end token stands before the first label, as before any document. first: (n + 1) where each span
    begins in the spans end to end.
    """

    spans: Spans
    seq_len: int
    eos_id: int
    first: Ints

    @property
    def tokens_per_sample(self) -> float:
        return self.spans.targets / max(len(self), 1)

    def __len__(self) -> int:
        return (self.spans.targets + self.seq_len - 1) // self.seq_len

    def longest(self, count: int) -> Ints:
        return np.arange(min(count, len(self)))

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._window(index, values)[1:]

    at_text = at_labels

    def sample(self, index: int, epoch: int = 0) -> Sample:
        assert 0 <= index < len(self), index
        return predict_next(self._window(index, self.spans.tokens), self.eos_id)

    def _window(self, index: int, values: npt.NDArray[Any]) -> Ints:
        """Values of the labels of a row and of the token before them; the end token stands before all."""
        low, high = index * self.seq_len - 1, min((index + 1) * self.seq_len, self.spans.targets)
        window = np.empty(high - low, dtype=np.int64)
        window[0] = self.eos_id
        at, low = (1, 0) if low < 0 else (0, low)
        span = int(self.first.searchsorted(low, side="right")) - 1
        while low < high:
            begin = int(self.spans.starts[span]) + low - int(self.first[span])
            taken = min(high - low, int(self.spans.ends[span]) - begin)
            window[at : at + taken] = values[begin : begin + taken]
            at, low, span = at + taken, low + taken, span + 1
        return window


def cut_rows(texts: Texts, starts: Ints, ends: Ints, seq_len: int) -> Rows:
    """The rows of the spans from `starts` to `ends`; empty ones are left out."""
    starts, ends = starts[starts < ends], ends[starts < ends]
    documents = len(starts)
    targets, text_bytes = texts.measure(starts, ends)
    begins = np.ones(documents, dtype=np.bool_)
    begins[1:] = starts[1:] != ends[:-1]
    starts, ends = starts[begins], ends[np.roll(begins, -1)]
    spans = Spans(
        tokens=texts.tokens, starts=starts, ends=ends, documents=documents, targets=targets, bytes=text_bytes,
        truncated=0,
    )  # fmt: skip
    return Rows(spans, seq_len, texts.eos_id, np.r_[0, np.cumsum(ends - starts)])


@dataclass(frozen=True)
class Documents(Stretches):
    """A span is cut to seq_len tokens; the token before the first label is the end token."""

    eos_id: int

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        start, end = self.place(index)
        return values[start:end][: self.seq_len]

    at_text = at_labels

    def sample(self, index: int, epoch: int = 0) -> Sample:
        text = self.at_labels(index, self.spans.tokens)
        window = np.empty(len(text) + 1, dtype=np.int64)
        window[0], window[1:] = self.eos_id, text
        return predict_next(window, self.eos_id)


def cut_documents(texts: Texts, starts: Ints, ends: Ints, seq_len: int) -> Documents:
    """The spans from `starts` to `ends` as samples; empty ones are left out."""
    starts, ends = starts[starts < ends], ends[starts < ends]
    targets, text_bytes = texts.measure(starts, np.minimum(ends, starts + seq_len))
    spans = Spans(
        tokens=texts.tokens, starts=starts, ends=ends, documents=len(starts), targets=targets,
        bytes=text_bytes, truncated=int((ends - starts > seq_len).sum()),
    )  # fmt: skip
    return Documents(spans, seq_len, texts.eos_id)


class TextShape(Shape):
    """Each text and the end token."""

    name = "texts"
    cuts_documents = True

    def encode(
        self, recipe: Recipe, documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, today: str
    ) -> Iterator[Ints]:
        return encode_texts(documents, tally, tokenizer)

    def finish(self, building: Building) -> Columns:
        offsets = building.arrays["offsets"]
        code = np.stack([offsets[:-1], offsets[1:]], axis=1)
        return Columns(arrays={}, code=code)

    def read(self, recipe: Recipe, built: Built, arrays: Arrays) -> None:
        """Nothing: texts have no columns of their own."""

    def take(self, recipe: Recipe, prepared: Prepared, use: str, rows: Ints, cut: Flags) -> Part:
        """Samples of whole documents and of parts: the end of a cut document is for validation."""
        texts, ratio = prepared.texts, recipe.data.validation_ratio
        starts, ends = texts.offsets[:-1], texts.offsets[1:]
        middles = ends - 1 - np.ceil(ratio * (ends - starts - 1)).astype(np.int64)
        middles = np.where(middles > starts, middles, ends)  # too short to be cut
        parts = {"train": (starts[cut], middles[cut]), "validation": (middles[cut], ends[cut])}
        begin, end = parts.get(use, (starts[:0], ends[:0]))
        # Parts of cut documents come last, as no end token separates them from the text after them.
        whole = rows[~cut[rows]]
        samples, dropped = _cut(recipe, texts, use, np.r_[starts[whole], begin], np.r_[ends[whole], end])
        split = weigh_tokens(hide_tokens(samples, recipe, prepared.tokenizer), recipe, prepared.built, use)
        return Part(split=split, lengths=np.diff(texts.offsets)[rows], summary=dropped)


def _cut(
    recipe: Recipe, texts: Texts, use: str, starts: Ints, ends: Ints
) -> tuple[Rows | Documents, dict[str, int]]:
    seq_len, too_long = recipe.train.seq_len, recipe.data.too_long
    if recipe.data.sample == "row":
        return cut_rows(texts, starts, ends, seq_len), {}
    if too_long == "cut":
        return cut_documents(texts, starts, ends, seq_len), {}
    is_long = ends - starts > seq_len
    if is_long.any() and (too_long == "refuse" or is_long.all()):
        count = f"all {len(is_long):,}" if is_long.all() else f"{int(is_long.sum()):,} of {len(is_long):,}"
        raise InputError(
            f"{count} documents of data.{use} have more than train.seq_len {seq_len:,} tokens, and "
            f'data.too_long is "{too_long}"; raise train.seq_len, or set data.too_long = "cut"'
        )
    samples = cut_documents(texts, starts[~is_long], ends[~is_long], seq_len)
    return samples, {"dropped": int(is_long.sum())}
