"""pass@k: the chance that one of k samples solves a problem, from n samples of which c do.

Source: arXiv:2107.03374, equation 1. It is unbiased; 1 - (1 - c/n)^k is not.
"""

import math
from collections.abc import Sequence

import numpy as np

from etude.scores.intervals import Difference, bootstrap, paired_difference
from etude.scores.labels import Floats


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): some of k samples that are drawn of n without return is among the c."""
    assert 0 <= passed <= samples and 1 <= k <= samples
    missed = samples - passed
    return 1.0 - math.prod((missed - i) / (samples - i) for i in range(k))


def figure(counts: Sequence[tuple[int, int]], k: int) -> tuple[float, float, float]:
    """The mean of pass@k over problems, (samples, passed) of each, and its interval of 95 % over problems."""
    values = np.array([pass_at_k(*each, k) for each in counts])
    found = bootstrap(lambda rows: float(values[rows].mean()), len(values))
    low, high = _widen(values, found.low, found.high, bounds=(0.0, 1.0))
    return float(values.mean()), low, high


def difference(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]], k: int) -> Difference:
    """The mean of a less that of b over the same problems."""
    ours, theirs = (np.array([pass_at_k(*each, k) for each in counts]) for counts in (a, b))
    found = paired_difference(
        lambda rows: float(ours[rows].mean()), lambda rows: float(theirs[rows].mean()), len(ours)
    )
    if found.value == 0:  # nothing is claimed
        return found
    return Difference(found.value, *_widen(ours - theirs, found.low, found.high, bounds=(-1.0, 1.0)))


def _widen(values: Floats, low: float, high: float, *, bounds: tuple[float, float]) -> tuple[float, float]:
    """An interval of a mean where all values are the same, so that resampling them shows no width.

    Problems that are otherwise are at most the share 1 - 0.025^(1/n), and at most as far as the bounds.
    Source: doi:10.1093/biomet/26.4.404 (Clopper and Pearson).
    """
    if len(values) < 2 or np.ptp(values) > 0:
        return low, high
    share, value = 1 - 0.025 ** (1 / len(values)), float(values[0])
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)
