"""Frequencies of targets: what a model knows that has learnt nothing of their order."""

import numpy as np

from etude.data.samples.sample import NO_TARGET, Samples

_SAMPLES = 256


def target_entropy(split: Samples) -> float | None:
    """Entropy of the targets of a split by how often each occurs, in nats; None without targets.

    Of 256 evenly spaced samples, corrected for their number. Source: Miller 1955 (the correction).
    """
    some = min(len(split), _SAMPLES)
    labels = [split.sample(index * len(split) // some).labels for index in range(some)]
    targets = np.concatenate([each[each != NO_TARGET] for each in labels]) if labels else np.zeros(0)
    if not len(targets):
        return None
    counts = np.unique(targets, return_counts=True)[1]
    shares = counts / len(targets)
    return float(-(shares * np.log(shares)).sum() + (len(counts) - 1) / (2 * len(targets)))
