"""The shingles of a text, by which near-duplicates are known, and the share of them that two texts share.

A shingle is five tokens in a row of the normalised text: lower case, without comments and white space. A
token is a word (letters, digits, _ and everything beyond ASCII) or a single mark. The Jaccard similarity of
two texts is that of their sets of shingles.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import Ints

Hashes = npt.NDArray[np.uint64]
SHINGLE_TOKENS = 5

# Only marks that stand apart from what is beside them: "C# code" and "http://" are no comments.
# A pattern that begins with a plain character is found many times as fast.
_LINE_COMMENTS = {mark: re.compile(rf"{mark}(?<!\S{mark})(?=[\s!])[^\n]*") for mark in ("#", "//")}
_BLOCK_COMMENT = re.compile(r"/\*(?<!\S/\*)")
_SPACE, _WORD, _MARK = 0, 1, 2
_SPACES = {*range(33), 127}
_WORDS = {*range(128, 256), 95, *(byte for byte in range(128) if chr(byte).isalnum())}
_CLASSES = np.full(256, _MARK, dtype=np.uint8)
_CLASSES[list(_WORDS)], _CLASSES[list(_SPACES)] = _WORD, _SPACE
_PIECE_BYTES = 1 << 20  # the arrays of a piece stay near the caches
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)


def normalize(text: str) -> str:
    """A text in lower case without comments; these stay if they are more than half of it."""
    text = text.lower()
    code = _without_comments(text)
    return code if 2 * len(code) >= len(text) else text


def shingle(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """Hashes of the shingles of all texts, in order and with repeats, and where those of each begin (n + 1).

    A text of fewer tokens than a shingle has is one shingle; one without a token has none. The hashes are the
    same on every machine.
    """
    encoded = [normalize(text).encode("utf-8", "surrogatepass") for text in texts]
    tokens, places = _hash_tokens(b"\n".join(encoded))
    starts = np.cumsum([0, *(len(text) + 1 for text in encoded)])
    borders = places.searchsorted(starts)
    counts = np.diff(borders)
    # Texts shorter than a shingle get empty tokens at their end.
    missing = np.where(counts > 0, np.maximum(SHINGLE_TOKENS - counts, 0), 0)
    if missing.any():
        tokens = np.insert(tokens, np.repeat(borders[1:], missing), np.uint64(0))
        counts = counts + missing
    offsets: Ints = np.r_[0, np.cumsum(np.maximum(counts - (SHINGLE_TOKENS - 1), 0))]
    if not offsets[-1]:
        return np.zeros(0, dtype=np.uint64), offsets
    size = len(tokens) - (SHINGLE_TOKENS - 1)
    mixed = np.zeros(size, dtype=np.uint64)
    for place in range(SHINGLE_TOKENS):
        mixed *= np.uint64(_MULTIPLIER)
        mixed += tokens[place : place + size]
    inside = np.ones(len(tokens), dtype=np.bool_)
    ends = np.cumsum(counts[counts > 0])
    for behind in range(1, SHINGLE_TOKENS):
        inside[ends - behind] = False  # would reach into the next text
    return spread(mixed[inside[:size]]), offsets


def shingle_sets(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """Sets of shingles, those of each text ascending without repeats, and the size of each set (n,)."""
    hashes, offsets = shingle(texts)
    sets = [np.unique(hashes[low:high]) for low, high in itertools.pairwise(offsets.tolist())]
    sizes = np.array([len(mine) for mine in sets], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=np.uint64), *sets]), sizes


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared hashes over all hashes of two sorted arrays without repeats; of two empty ones 1."""
    small, large = (first, second) if len(first) < len(second) else (second, first)
    if not len(small):
        return float(not len(large))
    is_shared = large[np.minimum(large.searchsorted(small), len(large) - 1)] == small
    shared = int(is_shared.sum())
    return shared / (len(first) + len(second) - shared)


def spread(values: Hashes) -> Hashes:
    """Spread every bit over all others. Source: splitmix64, Steele et al., 2014."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_tokens(data: bytes) -> tuple[Hashes, Ints]:
    """A hash of each token of UTF-8 text and where the token begins.

    With b the bytes and m an odd number, the hash of b[s:e] is sum(b[i] m^(i - s)) modulo 2^64: a difference
    of running sums, times the inverse of m^s.
    """
    hashes, places = [], []
    for low, high in _pieces(data):
        values = np.frombuffer(data, dtype=np.uint8, count=high - low, offset=low)
        kinds = np.zeros(len(values) + 2, dtype=np.uint8)
        kinds[1:-1] = _CLASSES[values]
        word, mark = kinds == _WORD, (kinds == _MARK)[1:-1]
        begins = np.flatnonzero(mark | (word[1:-1] & ~word[:-2]))
        ends = np.flatnonzero(mark | (word[1:-1] & ~word[2:])) + 1
        powers, inverses = _powers(max(len(values), _PIECE_BYTES))
        sums = np.zeros(len(values) + 1, dtype=np.uint64)
        np.cumsum((values.astype(np.uint64) + np.uint64(1)) * powers[: len(values)], out=sums[1:])
        hashes.append(spread((sums[ends] - sums[begins]) * inverses[begins]))
        places.append(begins + low)
    return np.concatenate(hashes), np.concatenate(places)


def _pieces(data: bytes) -> Iterator[tuple[int, int]]:
    """The places where pieces begin and end that cut no token."""
    low = 0
    while len(data) - low > _PIECE_BYTES:
        cut = max(data.rfind(b"\n", low, low + _PIECE_BYTES), data.rfind(b" ", low, low + _PIECE_BYTES))
        if cut < 0:
            borders = data.find(b"\n", low), data.find(b" ", low)
            cut = min((at for at in borders if at >= 0), default=len(data) - 1)
        yield low, cut + 1
        low = cut + 1
    yield low, len(data)


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    steps = (np.full(count, number, dtype=np.uint64) for number in (_MULTIPLIER, _INVERSE))
    powers, inverses = (np.multiply.accumulate(np.r_[np.uint64(1), step[1:]]) for step in steps)
    return powers, inverses


def _without_comments(text: str) -> str:
    for mark, comment in _LINE_COMMENTS.items():
        if mark in text:
            text = comment.sub(" ", text)
    parts, end = [], 0
    while (begin := _BLOCK_COMMENT.search(text, end)) and (close := text.find("*/", begin.end())) >= 0:
        parts.append(text[end : begin.start()])
        end = close + 2
    return " ".join([*parts, text[end:]])
