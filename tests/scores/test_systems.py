"""Several systems on the same rows, against scikit-learn and counts by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from etude.scores.answers import Answer
from etude.scores.systems import of_answers, of_labels, score_systems

NAMES = ["a", "b", "c"]
DRAW = np.random.default_rng(3)
TRUTH = DRAW.integers(0, 3, 200)
GOOD = np.where(DRAW.random(200) < 0.9, TRUTH, (TRUTH + 1) % 3)
FAIR = np.where(DRAW.random(200) < 0.6, TRUTH, (TRUTH + 2) % 3)
KINDS = [str(number % 11) for number in range(200)]


def test_each_system_has_the_figures_of_scikit_learn_within_their_intervals() -> None:
    measure = of_labels(TRUTH, NAMES, multi=False, figures=["f1", "accuracy"], metric="accuracy")
    scores = score_systems(measure, {"good": GOOD, "fair": FAIR}, [None] * 200)
    for name, predicted in (("good", GOOD), ("fair", FAIR)):
        f1, accuracy = scores.systems[name]["f1"], scores.systems[name]["accuracy"]
        assert f1[0] == pytest.approx(f1_score(TRUTH, predicted, average="macro"))
        assert accuracy[0] == pytest.approx(accuracy_score(TRUTH, predicted))
        assert f1[1] < f1[0] < f1[2] and accuracy[1] < accuracy[0] < accuracy[2]
    ((name, (gain, low, high)),) = scores.gains.items()
    assert name == "fair" and gain == pytest.approx(np.mean(GOOD == TRUTH) - np.mean(FAIR == TRUTH))
    assert 0 < low < gain < high and scores.capabilities == {}


def test_the_metric_is_told_by_capability_in_the_order_of_numbers() -> None:
    measure = of_labels(TRUTH, NAMES, multi=False, figures=["f1"], metric="accuracy")
    capabilities = score_systems(measure, {"good": GOOD, "fair": FAIR}, KINDS).capabilities
    assert list(capabilities) == [str(number) for number in range(11)]
    rows = np.arange(200) % 11 == 10
    assert capabilities["10"] == {
        "rows": rows.sum(),
        "good": pytest.approx(np.mean(GOOD[rows] == TRUTH[rows])),
        "fair": pytest.approx(np.mean(FAIR[rows] == TRUTH[rows])),
    }


def test_answers_are_held_only_against_the_systems_that_are_named() -> None:
    right = [Answer(text, text, True) for text in "abcdefgh"]
    half = [Answer(a.text if index % 2 else "?", a.reference, True) for index, a in enumerate(right)]
    systems = {"right": right, "half": half, "none": [Answer("?", a.reference, True) for a in right]}
    scores = score_systems(of_answers(["exact_match"], "exact_match"), systems, ["x", "y"] * 4, ["none"])
    assert scores.gains == {"none": [1.0, 1.0, 1.0]}
    assert {name: figures["exact_match"][0] for name, figures in scores.systems.items()} == {
        "right": 1.0, "half": 0.5, "none": 0.0,
    }  # fmt: skip
    assert scores.capabilities["x"] == {"rows": 4.0, "right": 1.0, "half": 0.0, "none": 0.0}
    assert scores.capabilities["y"] == {"rows": 4.0, "right": 1.0, "half": 1.0, "none": 0.0}
