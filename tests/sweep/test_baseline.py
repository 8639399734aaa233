"""A trial beats a baseline only beyond the noise, and all of them."""

import math
from dataclasses import replace

import pytest

from etude.recipe.metric import ChosenMetric
from etude.records.events import DataUsed, Evaluation, Scores
from etude.sweep.baseline import baseline_of_scores, baseline_of_tokens

F1, LOSS = ChosenMetric.parse("f1"), ChosenMetric.parse("loss")
SYSTEMS = {
    "after": {"f1": [0.70, 0.65, 0.75]}, "before": {"f1": [0.9, 0.9, 0.9]},
    "majority class": {"f1": [0.60, 0.55, 0.65]}, "words": {"f1": [0.66, 0.60, 0.72]},
}  # fmt: skip
SCORES = Scores(9, 100, "test", "f1", SYSTEMS, {})


@pytest.mark.parametrize(
    ("gains", "is_beaten"),
    [
        ({"words": [0.04, 0.01, 0.07], "majority class": [0.10, 0.04, 0.16]}, True),
        ({"words": [0.04, -0.01, 0.09], "majority class": [0.10, 0.04, 0.16]}, False),
        ({"words": [0.04, 0.01, 0.07], "majority class": [0.10, -0.02, 0.22]}, False),
        ({"words": [0.04, math.nan, math.nan], "majority class": [0.10, 0.04, 0.16]}, None),
        ({}, False),  # both intervals: 0.04 ± 0.078
    ],
)
def test_all_baselines_are_to_be_beaten_beyond_the_noise(
    gains: dict[str, list[float]], is_beaten: bool | None
) -> None:
    found = baseline_of_scores(replace(SCORES, gains=gains), F1)
    assert found is not None and (found.name, found.value, found.is_beaten) == ("words", 0.66, is_beaten)
    assert found.gain.value == pytest.approx(0.04)


def test_where_less_is_better_a_gain_is_less() -> None:
    systems = {"after": {"loss": [0.5, 0.4, 0.6]}, "always y": {"loss": [0.7, 0.65, 0.75]}}
    scores = replace(SCORES, metric="loss", systems=systems, gains={"always y": [-0.2, -0.3, -0.1]})
    found = baseline_of_scores(scores, LOSS)
    assert found is not None and found.is_beaten and found.gain.low == pytest.approx(0.1)
    assert found.text == "always y has 0.7000 on test rows, and it is 0.200 [0.1, 0.3] better than that"


@pytest.mark.parametrize(
    ("loss", "error", "is_beaten"),
    [(4.0, 0.1, True), (4.9, 0.1, False), (5.2, 0.1, False), (4.0, None, None)],
)
def test_a_loss_of_tokens_is_held_against_their_frequencies(
    loss: float, error: float | None, is_beaten: bool | None
) -> None:
    data = DataUsed("f" * 64, {}, entropy=5.0)
    best = Evaluation(10, loss, math.exp(loss), None, 100, 1.0, True, loss_error=error)
    found = baseline_of_tokens(data, best, LOSS)
    assert found is not None and found.is_beaten is is_beaten
    assert baseline_of_tokens(data, best, F1) is None
    assert baseline_of_tokens(replace(data, entropy=None), best, LOSS) is None
