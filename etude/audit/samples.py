"""A few short samples of a task, as batches that a loss takes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from etude.data.batch import collate
from etude.data.samples.sample import NO_TARGET, Sample, Samples
from etude.data.tokenize import Tokenizer
from etude.engine.batch import DeviceBatch, to_device

LONGEST = 96
DECODED = 64


def choose_samples(split: Samples, count: int, first: int = 0) -> list[Sample]:
    """Some evenly spaced samples of a split."""
    some = min(len(split), count)
    return [split.sample((first + index * len(split) // some) % len(split)) for index in range(some)]


def choose_short(split: Samples, count: int) -> list[Sample]:
    """Some samples cut to few tokens each, of different lengths where those of the split differ."""
    samples = [each for each in choose_samples(split, count) if len(each.tokens)]
    is_even = len({len(each.tokens) for each in samples}) < 2
    return [cut(each, LONGEST - (0 if is_even else 4 * place)) for place, each in enumerate(samples)]


def decoded(samples: Sequence[Sample], tokenizer: Tokenizer) -> list[str]:
    """The texts of some of the samples, without the tokens that are special."""
    some = samples[:: max(len(samples) // DECODED, 1)]
    return [tokenizer.decode(sample.tokens.tolist()) for sample in some]


def cut(sample: Sample, longest: int = LONGEST) -> Sample:
    """A sample with so many tokens at most: its first, or those up to its last target if they have none."""
    part = slice(0, longest)
    if sample.classes is None and not (sample.labels[part] != NO_TARGET).any():
        end = int(np.flatnonzero(sample.labels != NO_TARGET)[-1:].sum()) + 1
        part = slice(max(end - longest, 0), end)
    places = sample.positions[part]
    return replace(
        sample,
        tokens=sample.tokens[part],
        labels=sample.labels[part],
        documents=sample.documents[part] - sample.documents[part][:1],
        positions=places - places[:1] if len(places) and (np.diff(places) == 1).all() else places,
        second=min(sample.second, len(places)),
        code=None if sample.code is None else sample.code[part],
        weights=None if sample.weights is None else sample.weights[part],
    )


def lay_out(samples: Sequence[Sample], task: str, device: torch.device, *, attend: bool) -> DeviceBatch:
    """A batch of samples, as training lays them out."""
    return to_device(replace(collate(samples, attend), task=task), device)
