"""Training rows that are windows of longer texts, each with a part of the one before it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from etude.data.samples.sample import Samples
from etude.data.tokenize import Tokenizer
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import one_line, plural, verb

_ROWS, _BLOCKS, _LEAST_ROWS = 512, 8, 32  # neighbours are looked at, so in blocks
_TOKENS = 512  # of a row, which is enough of a window
_HEAD, _LEAST_SHARE, _DISTINCT = 32, 0.2, 8  # characters, share of a row, and different characters
_SOME, _MANY = 0.1, 0.3


def find_overlaps(task: Task) -> Iterator[Finding]:
    """A finding if many texts begin with what another ends with, word for word and to its end.

    Rows of one form have beginnings in common, but no row goes on to the end of another as a window does.
    """
    corpus, kind = task.corpus, task.recipe.kind
    if kind.hides_tokens or not kind.writes_text or corpus.examples_of.get("train"):
        return
    texts = _texts(corpus.train, corpus.tokenizer)
    found = _overlapping(texts)
    share = len(found) / max(len(texts), 1)
    if len(texts) < _LEAST_ROWS or share < _SOME:
        return
    place, length = sorted(found.items())[len(found) // 2]
    yield Finding(
        0, "rows of training overlap",
        f"{len(found):,} of {plural(len(texts), 'row')} ({share:.0%}) {verb(len(found), 'begin')} with what "
        f"another ends with, {np.median(list(found.values())):,.0f} characters in the middle, as "
        f"{one_line(texts[place][:length], 60)!r}",
        "cut windows that lie end to end, or give whole texts: samples are cut from them here. Split off "
        "validation before, or its rows overlap with those of training",
        severity="warning" if share >= _MANY else "info", window=[0, 0],
        causes=["windows with a stride shorter than their length"], kind="duplicates", confidence=0.9,
        decided_by="beginnings and ends of the texts of some rows",
        not_tested=["rows beyond those", "validation rows that overlap with those of training"],
    )  # fmt: skip


def _overlapping(texts: Sequence[str]) -> dict[int, int]:
    """The places of texts that begin within another and equal it to its end, with the characters of both."""
    heads: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        heads.setdefault(text[:_HEAD], []).append(place)
    found: dict[int, int] = {}
    for text in texts:
        for start in range(1, len(text) - _HEAD + 1):
            for place in heads.get(text[start : start + _HEAD], ()):
                both, other = text[start:], texts[place]
                is_long = len(both) >= _LEAST_SHARE * len(other) and len(set(both)) >= _DISTINCT
                if is_long and other.startswith(both):
                    found[place] = max(found.get(place, 0), len(both))
    return found


def _texts(split: Samples, tokenizer: Tokenizer) -> list[str]:
    """Rows that follow each other, in some blocks of the split."""
    spans, each = split.spans, _ROWS // _BLOCKS
    parts = []
    if len(spans.starts) >= spans.documents:
        count = len(spans.starts)
        firsts = sorted({place * count // _BLOCKS // each * each for place in range(_BLOCKS)})
        for first in firsts:
            rows = zip(spans.starts[first : first + each], spans.ends[first : first + each])
            parts += [spans.tokens[low:high] for low, high in rows]
    else:
        for low, high in zip(spans.starts[:_BLOCKS], spans.ends[:_BLOCKS]):
            block = spans.tokens[low : min(high, low + each * _TOKENS)]
            ends = np.flatnonzero(block == tokenizer.eos_id)
            parts += [block[first + 1 : last] for first, last in pairwise(ends[: each + 1])]
    texts = [tokenizer.decode(part[:_TOKENS].tolist()) for part in parts]
    return [text for text in texts if len(text) >= _HEAD]
