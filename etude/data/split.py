"""Which documents are held out, and samples as index arithmetic over the prepared tokens."""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from etude.errors import InputError

if TYPE_CHECKING:
    from etude.data.masking import Masking

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]
Mode = Literal["row", "document", "example", "whole", "pair"]
NO_TARGET = -100
_SPANS_AT_ONCE = 1 << 16
_PIECE_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Texts:
    """Prepared tokens, where each of n documents starts (n + 1) and its bytes (n); bytes of each id if
    byte-level.
    """

    tokens: npt.NDArray[Any]
    offsets: Ints
    sizes: Ints
    token_bytes: Ints | None
    eos_id: int


@dataclass(frozen=True)
class Sample:
    """Ids of one sample, all int64 of shape (n,): what the model sees, what it must say, and where documents
    begin.

    What is no target is NO_TARGET among the labels. `documents` counts from 0 and grows at each end token
    among `tokens`; `positions` restart there. A labelled text has `classes`, (k) with 1 where a label holds,
    and `second`, where its second text begins; `code`, (n, 4), is what etude.data.lexer says of each token,
    if that is wanted. Of a pair `tokens` are the source, and `labels`, (m,), all of the target. `weights`,
    fp32 as long as the labels, say how much each counts, if not all count 1.
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
class Split:
    """Samples cut from spans of the prepared tokens, without moving them.

    row: the spans end to end; row i has the seq_len labels from i * seq_len on, so every token is a target
    once. document: a span is a sample; what is beyond seq_len is cut off, and counted in `truncated`.
    example: a span is a sample, of which only what lies in `answers` (begin, end) is a target; all if that is
    None. whole: a span is a sample, whose target is what it is as a whole: a row of `classes`; `seconds` and
    `code` as in Sample. pair: a span is a source and, from `seconds` on, a target; of more than seq_len and
    target_len tokens those before the last, which ends a text, are cut off. The token before the first label
    is the end token, as it is before any document, but for examples, which begin with their own first token.
    With a `masking` a sample is instead what of the same tokens is not hidden, and what is. `kinds` are those
    of all tokens, each of which weighs what `kind_weights` says of its kind. `targets` and `bytes` are all
    tokens to predict and the text they stand for; `first` is where each span begins in the spans end to end.
    """

    tokens: npt.NDArray[Any]
    starts: Ints
    ends: Ints
    mode: Mode
    seq_len: int
    eos_id: int
    documents: int
    targets: int
    bytes: int
    truncated: int
    first: Ints
    answers: Ints | None = None
    classes: npt.NDArray[np.uint8] | None = None
    seconds: Ints | None = None
    target_len: int = 0
    masking: "Masking | None" = None
    code: npt.NDArray[Any] | None = None
    kinds: npt.NDArray[np.uint8] | None = None
    kind_weights: Weights | None = None

    def __len__(self) -> int:
        return -(-self.targets // self.seq_len) if self.mode == "row" else len(self.starts)

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a sample."""
        if self.mode == "row":
            return self.targets / max(len(self), 1)
        if self.mode == "pair" and self.seconds is not None:
            return float(np.minimum(self.seconds, self.seq_len).mean()) if len(self) else 0.0
        lengths = np.minimum(self.ends - self.starts - (self.mode == "example"), self.seq_len)
        return float(lengths.mean()) if len(self) else 0.0

    @property
    def scored(self) -> float:
        """Targets of one pass, which with a masking are a share of all tokens."""
        return self.targets * (self.masking.ratio if self.masking else 1.0)

    def longest(self, count: int) -> Ints:
        """The samples with most tokens, (count,) or fewer; rows are all as long."""
        if self.mode == "row":
            return np.arange(min(count, len(self)))
        return np.argsort(self.starts - self.ends, kind="stable")[:count]

    def groups(self, ids: Ints) -> list[Ints]:
        """The samples that may share a micro-batch: all."""
        return [ids]

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """Sample `index` of `len(self)`; only what is masked differs from epoch to epoch."""
        sample = self._sample(index)
        weights = None
        if self.kinds is not None and self.kind_weights is not None:
            weights = self.kind_weights[self._label_kinds(index, self.kinds)]
        if self.masking is None:
            return sample if weights is None else replace(sample, weights=weights)
        is_whole = self.mode == "example"  # other samples begin with the end token before them
        text = np.r_[sample.tokens[:1], sample.labels][: self.seq_len] if is_whole else sample.labels
        documents = np.r_[0, (text[:-1] == self.eos_id).cumsum()]
        positions = np.arange(len(text)) - np.flatnonzero(np.r_[True, np.diff(documents) > 0])[documents]
        tokens, labels = self.masking.hide(text, epoch=epoch, index=index)
        return Sample(tokens, labels, documents, positions, weights=weights)

    def _label_kinds(self, index: int, kinds: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """What the labels of a sample are; of a masked example those of all its tokens."""
        if self.mode == "row":
            return self._window(
                index * self.seq_len - 1, min((index + 1) * self.seq_len, self.targets), kinds
            )[1:]
        start, end = int(self.starts[index]), int(self.ends[index])
        if self.mode == "pair":
            assert self.seconds is not None
            return _cut_end(kinds[start + int(self.seconds[index]) : end], self.target_len)
        if self.mode == "document":
            return kinds[start:end][: self.seq_len]
        return kinds[start:end][: self.seq_len] if self.masking else kinds[start + 1 : end]

    def _sample(self, index: int) -> Sample:
        assert 0 <= index < len(self), index
        if self.mode == "whole":
            return self._whole(index)
        if self.mode == "pair":
            return self._pair(index)
        if self.mode == "example":
            return self._example(int(self.starts[index]), int(self.ends[index]))
        if self.mode == "document":
            start, end = int(self.starts[index]), int(self.ends[index])
            window = np.empty(min(end - start, self.seq_len) + 1, dtype=np.int64)
            window[0] = self.eos_id
            window[1:] = self.tokens[start : start + len(window) - 1]
        else:
            window = self._window(
                index * self.seq_len - 1, min((index + 1) * self.seq_len, self.targets), self.tokens
            )
        tokens = window[:-1]
        positions = np.arange(len(tokens), dtype=np.int64)
        documents = np.zeros(len(tokens), dtype=np.int64)
        if (begins := np.flatnonzero(tokens[1:] == self.eos_id) + 1).size:
            documents[begins] = 1
            documents = documents.cumsum()
            positions -= np.r_[0, begins][documents]
        return Sample(tokens, window[1:], documents, positions)

    def _whole(self, index: int) -> Sample:
        assert self.classes is not None and self.seconds is not None
        start, end = int(self.starts[index]), int(self.ends[index])
        tokens = self.tokens[start:end].astype(np.int64)
        code = None if self.code is None else self.code[start:end].astype(np.int64)
        zeros, nothing = (
            np.zeros(len(tokens), dtype=np.int64),
            np.full(len(tokens), NO_TARGET, dtype=np.int64),
        )
        positions = np.arange(len(tokens), dtype=np.int64)
        return Sample(
            tokens, nothing, zeros, positions, self.classes[index], int(self.seconds[index]), code=code
        )

    def _pair(self, index: int) -> Sample:
        assert self.seconds is not None
        start, end, second = int(self.starts[index]), int(self.ends[index]), int(self.seconds[index])
        source = _cut_end(self.tokens[start : start + second].astype(np.int64), self.seq_len)
        target = _cut_end(self.tokens[start + second : end].astype(np.int64), self.target_len)
        return Sample(
            source, target, np.zeros_like(source), np.arange(len(source), dtype=np.int64), is_pair=True
        )

    def _example(self, start: int, end: int) -> Sample:
        window = self.tokens[start:end].astype(np.int64)
        labels = window[1:]
        if self.answers is not None:
            labels = np.full(len(window) - 1, NO_TARGET, dtype=np.int64)
            for first, last in self.answers[slice(*self.answers[:, 0].searchsorted((start, end)))] - (
                start + 1
            ):
                labels[max(first, 0) : last] = window[1:][max(first, 0) : last]
        documents = np.zeros(len(labels), dtype=np.int64)
        return Sample(window[:-1], labels, documents, np.arange(len(labels), dtype=np.int64))

    def _window(self, low: int, high: int, values: npt.NDArray[Any]) -> Ints:
        """Values at the places low to high of the spans end to end; the end token stands at place -1."""
        window = np.empty(high - low, dtype=np.int64)
        window[0] = self.eos_id
        at, low = (1, 0) if low < 0 else (0, low)
        span = int(self.first.searchsorted(low, side="right")) - 1
        while low < high:
            begin = int(self.starts[span]) + low - int(self.first[span])
            taken = min(high - low, int(self.ends[span]) - begin)
            window[at : at + taken] = values[begin : begin + taken]
            at, low, span = at + taken, low + taken, span + 1
        return window


def cut_samples(texts: Texts, starts: Ints, ends: Ints, mode: Mode, seq_len: int) -> Split:
    """The samples of the spans from `starts` to `ends`; empty ones are left out."""
    starts, ends = starts[starts < ends], ends[starts < ends]
    documents, truncated = len(starts), 0
    if mode == "document":
        truncated = int((ends - starts > seq_len).sum())
        targets, text_bytes = _measure(texts, starts, np.minimum(ends, starts + seq_len))
    else:
        targets, text_bytes = _measure(texts, starts, ends)
        begins = np.ones(documents, dtype=np.bool_)
        begins[1:] = starts[1:] != ends[:-1]
        starts, ends = starts[begins], ends[np.roll(begins, -1)]
    first = np.r_[0, np.cumsum(ends - starts)]
    return Split(
        texts.tokens,
        starts,
        ends,
        mode,
        seq_len,
        texts.eos_id,
        documents,
        targets,
        text_bytes,
        truncated,
        first,
    )


def take_wholes(
    texts: Texts,
    rows: Ints,
    classes: npt.NDArray[np.uint8],
    seconds: Ints,
    seq_len: int,
    code: npt.NDArray[Any] | None = None,
) -> Split:
    """Documents `rows` as they are, each with its row of `classes`; targets are documents.

    `code` is of all tokens.
    """
    starts, ends = texts.offsets[rows], texts.offsets[rows + 1]
    return Split(
        texts.tokens, starts, ends, "whole", seq_len, texts.eos_id, len(rows), len(rows),
        int(texts.sizes[rows].sum()), 0, np.r_[0, np.cumsum(ends - starts)], classes=classes[rows],
        seconds=seconds[rows], code=code,
    )  # fmt: skip


def take_pairs(
    texts: Texts, rows: Ints, seconds: Ints, seq_len: int, target_len: int, *, drop: bool
) -> tuple[Split, Flags]:
    """Documents `rows` as sources and targets, and which of the rows are too long, (n,), so cut,
    or dropped."""
    starts, ends, seconds = texts.offsets[rows], texts.offsets[rows + 1], seconds[rows]
    written = ends - starts - seconds
    too_long = (seconds > seq_len) | (written > target_len)
    kept = ~too_long | (not drop)
    starts, ends, seconds, written = starts[kept], ends[kept], seconds[kept], written[kept]
    split = Split(
        texts.tokens, starts, ends, "pair", seq_len, texts.eos_id, len(starts),
        int(np.minimum(written, target_len).sum()), _count_bytes(texts, starts + seconds, ends),
        int(too_long[kept].sum()), np.r_[0, np.cumsum(ends - starts)], seconds=seconds, target_len=target_len,
    )  # fmt: skip
    return split, too_long


@dataclass(frozen=True)
class Left:
    """Which of the rows (n,) that were to be examples became one, were left out and why, or lost
    their end."""

    kept: Flags
    dropped: Flags
    cut_away: Flags
    cut: Flags


def cut_examples(
    texts: Texts,
    rows: Ints,
    answers: Ints,
    seq_len: int,
    *,
    answers_only: bool = True,
    drop: bool = False,
) -> tuple[Split, Left]:
    """Documents `rows` as samples of seq_len tokens at most, longer ones cut or dropped; without a target,
    left out.

    answers: (m, 2) where what is learnt begins and ends in the tokens, ascending. What stands behind the last
    target is left out, as nothing depends on it.
    """
    starts, wholes = texts.offsets[rows], texts.offsets[rows + 1]
    mine = answers[:, 0].searchsorted(starts), answers[:, 0].searchsorted(wholes)
    counts = mine[1] - mine[0]
    row = np.repeat(np.arange(len(rows)), counts)  # of each answer in any of the rows
    index = np.repeat(mine[0] - np.r_[0, np.cumsum(counts)[:-1]], counts) + np.arange(len(row))
    begins, stops = np.maximum(answers[index, 0], starts[row] + 1), answers[index, 1]
    if answers_only:
        wholes = starts.copy()
        np.maximum.at(wholes, row, stops)
    ends = np.minimum(wholes, starts + seq_len + 1)
    cut = ends < wholes
    dropped = cut & drop
    if answers_only:
        stops = np.minimum(stops, ends[row])
        scored = np.maximum(stops - begins, 0)
        targets = np.bincount(row, scored, minlength=len(rows)).astype(np.int64)
        ends = starts.copy()
        np.maximum.at(ends, row[scored > 0], stops[scored > 0])
    else:
        targets = np.maximum(ends - starts - 1, 0)
    kept = (targets > 0) & ~dropped
    if answers_only:
        used = kept[row] & (scored > 0)
        text_bytes = _count_bytes(texts, begins[used], stops[used])
    else:
        text_bytes = _count_bytes(texts, starts[kept] + 1, ends[kept])
    split = Split(
        texts.tokens, starts[kept], ends[kept], "example", seq_len, texts.eos_id, int(kept.sum()),
        int(targets[kept].sum()), text_bytes, int((cut & kept).sum()),
        np.r_[0, np.cumsum(ends[kept] - starts[kept])], answers if answers_only else None,
    )  # fmt: skip
    return split, Left(kept, dropped, ~kept & ~dropped, cut & kept)


def hold_out(hashes: npt.NDArray[np.uint8], units: Ints, ratio: float) -> Flags:
    """Choose the documents of the validation split, shape (n,): whole units, about ratio x n documents, at
    least one.

    Units are taken in the order of a hash of their content, a number u from 0 to 1: the lowest hash of m
    texts, made fair by 1 - (1 - u)^m, as the lowest of many tends to be low. A unit of over twice what is
    still wanted is passed over, and one unit is always left for training.

    Raises: InputError if there is only one unit.
    """
    _, first, unit, sizes = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        what = "they share a group, a text or a prompt" if len(units) > 1 else "there is only one"
        raise InputError(
            f"data.validation: none of the {len(units):,} documents can be held out, as {what}; "
            'name a source under [[data.validation]], or set data.validation = "none"'
        )
    texts = np.bincount(unit[np.unique(number_texts(hashes), return_index=True)[1]], minlength=len(sizes))
    lowest = np.full(len(sizes), 1 - 2.0**-53)
    np.minimum.at(lowest, unit, np.ascontiguousarray(hashes[:, :8]).view(">u8")[:, 0] / 2.0**64)
    order = np.lexsort((first, -np.expm1(texts * np.log1p(-lowest))))
    wanted = math.ceil(ratio * len(units))
    chosen: list[int] = []
    for index in order:
        if wanted <= 0 or len(chosen) == len(sizes) - 1:
            break
        if sizes[index] <= 2 * wanted:
            chosen.append(int(index))
            wanted -= int(sizes[index])
    chosen = chosen or [int(order[np.argmin(sizes[order])])]
    held: Flags = np.isin(unit, chosen)
    return held


def connect(*labels: Ints) -> Ints:
    """Number documents (n,) so that those with an equal label, or linked through others that have one, are
    the same.
    """
    units = np.arange(len(labels[0]), dtype=np.int64)
    while True:
        before = units
        for label in labels:
            lowest = np.full(int(label.max(initial=-1)) + 1, len(units), dtype=np.int64)
            np.minimum.at(lowest, label, units)
            units = lowest[label]
        units = units[units]  # follow the links twice as far each time
        if np.array_equal(units, before):
            return units


def hash_words(text: str) -> bytes:
    """The same for texts that differ in white space only; 128 bits."""
    digest, low = hashlib.sha256(), 0
    while low < len(text):
        high = text.find("\n", low + _PIECE_CHARACTERS) + 1 or len(
            text
        )  # ends no word, and words take memory
        digest.update(" ".join([*text[low:high].split(), ""]).encode("utf-8", "surrogatepass"))
        low = high
    return digest.digest()[:16]


def number_texts(hashes: npt.NDArray[np.uint8]) -> Ints:
    """Numbers (n,) that are equal where the hashes (n, 16) are."""
    pairs = np.ascontiguousarray(hashes).view("<u8")
    order = np.lexsort(pairs.T)
    labels = np.zeros(len(pairs), dtype=np.int64)
    labels[order[1:]] = np.cumsum((pairs[order[1:]] != pairs[order[:-1]]).any(axis=1))
    return labels


def _cut_end(ids: npt.NDArray[Any], longest: int) -> npt.NDArray[Any]:
    return ids if len(ids) <= longest else np.r_[ids[: longest - 1], ids[-1:]]


def _count_bytes(texts: Texts, starts: Ints, ends: Ints) -> int:
    """Bytes of the text that the tokens of many spans stand for; by their share of all if they are not
    byte-level.
    """
    if texts.token_bytes is None:
        return int(texts.sizes.sum() * (ends - starts).sum() / max(len(texts.tokens), 1))
    total = 0
    for low in range(0, len(starts), _SPANS_AT_ONCE):
        lengths = (ends - starts)[low : low + _SPANS_AT_ONCE]
        places = np.repeat(starts[low : low + _SPANS_AT_ONCE] - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
        total += int(texts.token_bytes[texts.tokens[places + np.arange(len(places))]].sum())
    return total


def _measure(texts: Texts, starts: Ints, ends: Ints) -> tuple[int, int]:
    """Tokens of the spans, and bytes of their text: exact, but for parts of documents whose ids are not
    byte-level.
    """
    document = np.searchsorted(texts.offsets, starts, side="right") - 1
    part = (starts > texts.offsets[document]) | (ends < texts.offsets[document + 1])
    text_bytes = int(texts.sizes[document[~part]].sum())
    for index, start, end in zip(document[part], starts[part], ends[part]):
        if texts.token_bytes is not None:
            text_bytes += int(texts.token_bytes[texts.tokens[start:end]].sum())
        else:
            whole = int(texts.offsets[index + 1] - texts.offsets[index])
            text_bytes += int(texts.sizes[index]) * int(end - start) // whole
    return int((ends - starts).sum()), text_bytes
