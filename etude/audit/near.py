"""Training rows that are nearly equal to others: texts that differ by a number, a phrase or their indent."""

import itertools
from collections.abc import Iterator

import numpy as np

from etude.audit.samples import choose_samples
from etude.data.dedup import find_buckets, hash_bands, match_near
from etude.data.samples.sample import Ints, Samples
from etude.data.shingles import shingle_sets
from etude.data.tokenize import Tokenizer
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import one_line, plural, verb

_ROWS, _LEAST_ROWS = 1024, 32
_LONGEST = 1024  # tokens of a text
_BLOCKS = 16  # of documents that lie end to end
_LEAST_SHINGLES = 8  # of a text that tells
_ALIKE = 0.8  # below it rows of one form are alike, as questions with another number each
_SOME, _MANY = 0.1, 0.3


def find_near_duplicates(task: Task) -> Iterator[Finding]:
    """A finding if many of some rows are like one before them, as `data.deduplicate = "near"` sees it.

    Of 1,024 rows at most, so that copies which are rare among all rows are not seen.
    """
    data = task.recipe.data
    if data.deduplicate == "near" or task.recipe.kind.hides_tokens:
        return
    threshold = max(data.near_threshold, _ALIKE)
    texts, labels = _texts(task)
    hashes, sizes = shingle_sets(texts)
    offsets = np.r_[0, np.cumsum(sizes)]
    tells = sizes >= _LEAST_SHINGLES
    if tells.sum() < _LEAST_ROWS:
        return
    buckets = find_buckets(hash_bands(hashes, offsets, threshold).T, tells)
    found, _ = match_near(
        buckets,
        lambda index: hashes[slice(*offsets[[buckets.documents[index], buckets.documents[index] + 1]])],
        np.zeros(len(texts), dtype=np.bool_), labels, threshold, keep_leaks=False,
    )  # fmt: skip
    share = len(found) / int(tells.sum())
    if share < _SOME:
        return
    like = found[len(found) // 2]
    yield Finding(
        0, "rows of training are nearly equal to others",
        f"{len(found):,} of {plural(int(tells.sum()), 'row')} ({share:.0%}) {verb(len(found), 'have')} at "
        f"least {threshold:.0%} of their shingles in common with one before them, as "
        f"{one_line(texts[like.document], 60)!r} and {one_line(texts[like.other], 60)!r}",
        'set data.deduplicate = "near"; `etude data RECIPE` names the rows. If they were varied to weigh '
        "more, leave it",
        severity="warning" if share >= _MANY else "info", window=[0, 0],
        causes=["rows that repeat with a number or a phrase of their own", "rows varied to weigh more"],
        changes={"data.deduplicate": "near"}, kind="duplicates", confidence=0.9,
        decided_by="shingles of the texts of some rows", not_tested=["rows beyond those"],
    )  # fmt: skip


def _texts(task: Task) -> tuple[list[str], Ints]:
    """The texts of some training rows, and a number for the labels of each."""
    corpus = task.corpus
    if examples := corpus.examples_of.get("train", ()):
        count = min(len(examples), _ROWS)
        some = [examples[place * len(examples) // count] for place in range(count)]
        texts = [f"{each.prompt}\n{each.reference}" for each in some]
    else:
        samples = choose_samples(corpus.train, _ROWS)
        if classes := [each.classes for each in samples if each.classes is not None]:
            texts = [corpus.tokenizer.decode(each.tokens.tolist()) for each in samples]
            return texts, np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1)
        texts = _documents(corpus.train, corpus.tokenizer)
    return texts, np.zeros(len(texts), dtype=np.int64)


def _documents(split: Samples, tokenizer: Tokenizer) -> list[str]:
    """Some whole documents, of samples that are one each or that lie end to end."""
    spans = split.spans
    if len(spans.starts) >= spans.documents:
        places = np.unique(np.arange(_ROWS) * len(spans.starts) // _ROWS)
        parts = [
            spans.tokens[low:high][:_LONGEST] for low, high in zip(spans.starts[places], spans.ends[places])
        ]
    else:
        each = _ROWS * _LONGEST // _BLOCKS // 4
        parts = []
        for place in np.unique(np.arange(_BLOCKS) * len(spans.starts) // _BLOCKS):
            low, high = int(spans.starts[place]), int(spans.ends[place])
            for start in range(low, high, max((high - low) // _BLOCKS, each)):
                block = spans.tokens[start : min(start + each, high)]
                ends = np.flatnonzero(block == tokenizer.eos_id)
                parts += [block[first + 1 : last] for first, last in itertools.pairwise(ends)]
        parts = (
            [parts[place * len(parts) // _ROWS] for place in range(_ROWS)] if len(parts) > _ROWS else parts
        )
    return [tokenizer.decode(part[:_LONGEST].tolist()) for part in parts]
