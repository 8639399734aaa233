"""One sample, and the samples of a split by index arithmetic over the prepared tokens."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]
NO_TARGET = -100
_SPANS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Sample:
    """One sample; arrays are int64 of shape (n,) unless they say otherwise.

    tokens     ids that the model reads
    labels     id to predict at each token, NO_TARGET where nothing is scored; of a pair (m,), the target
    documents  number of the document that each token belongs to; it grows at each end token among the tokens
    positions  place of each token in its document
    classes    (k,) uint8, 1 where a label of a labelled text holds
    second     where the second text of a labelled pair begins
    is_pair    true if the labels are a text of their own
    task       name of the task, if a run has several
    code       (n, 4), kind of each token as code by etude.data.lexer
    weights    fp32, as long as the labels: weight of each in the loss; None if each counts 1
    """

    tokens: Ints
    labels: Ints
    documents: Ints
    positions: Ints
    classes: npt.NDArray[np.uint8] | None = None
    second: int = 0
    is_pair: bool = False
    task: str = ""
    code: Ints | None = None
    weights: Weights | None = None


@dataclass(frozen=True)
class Texts:
    """The tokens of n documents end to end, each with its end token.

    offsets      (n + 1) where each document starts, and the last one ends
    sizes        (n,) bytes of their texts
    token_bytes  (vocabulary,) bytes that each id stands for; None if the tokenizer is not byte-level
    """

    tokens: npt.NDArray[Any]
    offsets: Ints
    sizes: Ints
    token_bytes: Ints | None
    eos_id: int

    def count_bytes(self, starts: Ints, ends: Ints) -> int:
        """Bytes of the text of many spans; by their share of all tokens if these are not byte-level."""
        if self.token_bytes is None:
            return int(self.sizes.sum() * (ends - starts).sum() / max(len(self.tokens), 1))
        total = 0
        for low in range(0, len(starts), _SPANS_AT_ONCE):
            lengths = (ends - starts)[low : low + _SPANS_AT_ONCE]
            firsts = starts[low : low + _SPANS_AT_ONCE] - np.r_[0, np.cumsum(lengths)[:-1]]
            places = np.repeat(firsts, lengths)
            total += int(self.token_bytes[self.tokens[places + np.arange(len(places))]].sum())
        return total

    def measure(self, starts: Ints, ends: Ints) -> tuple[int, int]:
        """Tokens of spans that are documents or parts of one, and bytes of their text.

        The bytes are exact, but for parts of documents whose ids are not byte-level.
        """
        document = np.searchsorted(self.offsets, starts, side="right") - 1
        part = (starts > self.offsets[document]) | (ends < self.offsets[document + 1])
        text_bytes = int(self.sizes[document[~part]].sum())
        for index, start, end in zip(document[part], starts[part], ends[part]):
            if self.token_bytes is not None:
                text_bytes += int(self.token_bytes[self.tokens[start:end]].sum())
            else:
                whole = int(self.offsets[index + 1] - self.offsets[index])
                text_bytes += int(self.sizes[index]) * int(end - start) // whole
        return int((ends - starts).sum()), text_bytes


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Stretches of the prepared tokens that make a split, with their totals.

    starts, ends  (n,) places in the tokens
    documents     number of documents
    targets       number of tokens to predict; of labelled texts, of texts
    bytes         bytes of the text that the targets stand for
    truncated     number of documents that lost their end
    share         part of the targets that one pass scores: below 1 where tokens are hidden
    """

    tokens: npt.NDArray[Any]
    starts: Ints
    ends: Ints
    documents: int
    targets: int
    bytes: int
    truncated: int
    share: float = 1.0

    @property
    def scored(self) -> float:
        """Targets of one pass over all samples."""
        return self.targets * self.share

    def mean_length(self, seq_len: int) -> float:
        """Mean tokens of a span that is cut to seq_len; 0 without spans."""
        lengths = np.minimum(distinct(self.ends) - distinct(self.starts), seq_len)
        return float(lengths.mean()) if len(lengths) else 0.0

    def longest(self, count: int) -> Ints:
        """The longest spans, (count,) or fewer."""
        if len(distinct(self.ends) - distinct(self.starts)) < len(self.ends):
            return np.arange(min(count, len(self.ends)))
        return np.argsort(self.starts - self.ends, kind="stable")[:count]


def distinct(values: Ints) -> Ints:
    """One value of an array that holds one for all and takes no memory, as that of assumed rows."""
    return values if values.strides[0] else values[:1]


@dataclass(frozen=True)
class Stretches:
    """Samples that are one span each, of seq_len tokens at most."""

    spans: Spans
    seq_len: int

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a sample."""
        return self.spans.mean_length(self.seq_len)

    def __len__(self) -> int:
        return len(self.spans.starts)

    def longest(self, count: int) -> Ints:
        """The samples with most tokens, (count,) or fewer."""
        return self.spans.longest(count)

    def place(self, index: int) -> tuple[int, int]:
        """The place of a span in the tokens, from its first token to behind its last."""
        assert 0 <= index < len(self), index
        return int(self.spans.starts[index]), int(self.spans.ends[index])


class Samples(Protocol):
    """The samples of a split. A shape is a class of such samples; wrappers hide or weigh their tokens."""

    @property
    def spans(self) -> Spans:
        """The stretches of tokens that the samples are cut from."""

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a sample."""

    def __len__(self) -> int: ...

    def longest(self, count: int) -> Ints:
        """The samples with most tokens, (count,) or fewer."""

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """Sample `index` of `len(self)`; only hidden tokens differ from epoch to epoch."""


class TokenSamples(Samples, Protocol):
    """Samples whose targets are tokens."""

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values, one for each prepared token, of the labels of a sample."""


class TextSamples(TokenSamples, Protocol):
    """Samples that are stretches of text, any token of which may be hidden."""

    @property
    def eos_id(self) -> int: ...

    def at_text(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values, one for each prepared token, of all tokens of a sample."""


def predict_next(window: Ints, eos_id: int) -> Sample:
    """The sample that predicts each token of a window (n + 1) from those before it."""
    tokens = window[:-1]
    positions = np.arange(len(tokens), dtype=np.int64)
    documents = np.zeros(len(tokens), dtype=np.int64)
    if (begins := np.flatnonzero(tokens[1:] == eos_id) + 1).size:
        documents[begins] = 1
        documents = documents.cumsum()
        positions -= np.r_[0, begins][documents]
    return Sample(tokens, window[1:], documents, positions)
