"""Samples that are too short for their texts."""

from collections.abc import Iterator

import numpy as np

from etude.data.samples.pairs import Pairs
from etude.objectives.task import Task
from etude.records.events import Finding

_MANY, _NEARLY = 0.5, 0.9
_HELD = 0.95  # of the samples


def find_cut(task: Task) -> Iterator[Finding]:
    """Texts with a label, sources and targets, of which most lose their end."""
    split, train = task.corpus.train, task.recipe.train
    if isinstance(split, Pairs):
        lengths = split.spans.ends - split.spans.starts - split.seconds
        sides = (
            ("sources", "train.seq_len", split.seconds, train.seq_len),
            ("targets", "train.target_len", lengths, split.target_len),
        )
        for noun, key, sizes, most in sides:
            cut = int((sizes > most).sum())
            if cut > _MANY * len(split):
                yield _finding(cut, len(split), noun, key, int(np.quantile(sizes, _HELD)))
    elif task.recipe.kind.has_labels and split.spans.truncated > _MANY * len(split):
        cut = split.spans.truncated  # the full lengths are not kept
        times = 4 if cut > _NEARLY * len(split) else 2
        yield _finding(cut, len(split), "texts", "train.seq_len", times * train.seq_len)


def _finding(cut: int, of: int, noun: str, key: str, length: int) -> Finding:
    return Finding(
        0, f"most {noun} lose their end", f"{cut:,} of {of:,} {noun} have more tokens than {key}",
        f"set {key} to {length:,}, if memory allows",
        severity="info", window=[0, 0],
        causes=["samples that are cut before their end"], changes={key: length}, kind="samples_cut",
        confidence=1.0, decided_by="the lengths of all samples",
    )  # fmt: skip
