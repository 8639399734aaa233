"""Statistics of streams against numpy and scipy."""

import math
import statistics
from random import Random

import numpy as np
import pytest
from scipy import stats

from etude.watch.stream import Blocks, Cusum, Ema, Window, deviation, mann_kendall, noise, theil_sen


@pytest.mark.parametrize("size", [1, 2, 5, 200])
def test_a_window_has_the_median_and_spread_of_its_last_values(size: int) -> None:
    random, window, values = Random(size), Window(size), list[float]()
    for _ in range(500):
        values.append(random.choice([random.gauss(0, 1), 1.0]))
        window.add(values[-1])
        last = values[-size:]
        assert window.values() == last and window.is_full == (len(values) >= size)
        assert window.median() == pytest.approx(np.median(last))
        assert window.deviation() == pytest.approx(stats.median_abs_deviation(last, scale="normal"), rel=1e-4)


def test_the_first_values_of_an_average_count_alike() -> None:
    average, values = Ema(9), [3.0, 1.0, 2.0]
    for count, value in enumerate(values, 1):
        assert average.add(value) == pytest.approx(statistics.mean(values[:count]))
    for _ in range(100):
        average.add(7.0)
    assert average.value == pytest.approx(7.0)


def test_blocks_are_means_of_values_and_places() -> None:
    blocks = Blocks(4, 3)
    ends = [blocks.add(step, step * 2.0) for step in range(1, 17)]
    assert ends == [step % 4 == 0 for step in range(1, 17)]
    assert list(blocks.places) == [6.5, 10.5, 14.5] and list(blocks.means) == [13.0, 21.0, 29.0]


@pytest.mark.parametrize("count", [3, 10, 24])
def test_the_trend_is_that_of_scipy(count: int) -> None:
    random = Random(count)
    places = [float(at * 10) for at in range(count)]
    values = [0.3 * place + random.gauss(0, 5) for place in places]
    slope, low, high = theil_sen(places, values, score=1.96)
    theirs = stats.theilslopes(values, places, alpha=0.95)
    assert slope == pytest.approx(theirs[0])
    spacing = np.ptp(values) / 10
    assert low <= theirs[2] + spacing and high >= theirs[3] - spacing  # they round their ranks otherwise
    assert low <= slope <= high


def test_the_score_of_a_trend_is_that_of_kendalls_tau() -> None:
    random = Random(1)
    for _ in range(20):
        values = [at * 0.02 + random.choice([random.gauss(0, 1), 1.0]) for at in range(40)]
        expected = stats.kendalltau(range(40), values, method="asymptotic").pvalue
        assert 2 * stats.norm.sf(abs(mann_kendall(values))) == pytest.approx(expected, rel=0.2, abs=1e-3)
    assert mann_kendall([1.0] * 10) == 0.0


def test_noise_is_told_apart_from_a_trend() -> None:
    random = Random(2)
    values = [5 / (1 + at / 50) + random.gauss(0, 0.1) for at in range(1000)]
    assert noise(values) == pytest.approx(0.1, rel=0.1)
    assert deviation(values) > 0.2 and math.isnan(noise(values[:3]))


def test_a_change_by_one_deviation_shows_after_about_sixteen_values() -> None:
    random, delays = Random(3), []
    for _ in range(200):
        cusum, delay = Cusum(), 0
        while not cusum.add(random.gauss(-1, 1)):
            delay += 1
        delays.append(delay)
    assert 12 < statistics.mean(delays) < 20


def test_chance_exceeds_the_limit_about_once_in_ten_thousand_values() -> None:
    random, cusum, alarms = Random(4), Cusum(), 0
    for _ in range(100_000):  # of both sides: 19,000 each
        if cusum.add(random.gauss(0, 1)):
            alarms += 1
            cusum.clear()
    assert 3 <= alarms <= 25
