"""Figures from labels, against scikit-learn and by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from etude.scores import labels
from etude.scores.labels import choose_thresholds, confusion, predict_by_other_rows, score_labels

NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def one_label(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Truth, predictions and the number of classes, of which some may be missing in either."""
    classes, rows = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    column = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    return np.array(draw(column)), np.array(draw(column)), classes


@st.composite
def several_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes, rows = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    flags = st.lists(
        st.lists(st.booleans(), min_size=classes, max_size=classes), min_size=rows, max_size=rows
    )
    return np.array(draw(flags)), np.array(draw(flags)), classes


def expected(truth: np.ndarray, predicted: np.ndarray, classes: int, average: str | None) -> list[np.ndarray]:
    said = metrics.precision_recall_fscore_support(
        truth, predicted, labels=range(classes), average=average, zero_division=0
    )
    return list(said[:3])


def check_averages(figures: dict[str, float], truth: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    for average in ("macro", "micro"):
        mine = [figures[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        assert mine == pytest.approx(expected(truth, predicted, classes, average))
    for name, values in zip(("precision", "recall", "f1"), expected(truth, predicted, classes, None)):
        assert [figures[f"{name}/{label}"] for label in NAMES[:classes]] == pytest.approx(list(values))


@given(one_label())
def test_figures_of_one_label_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    truth, predicted, classes = case
    figures = score_labels(truth, predicted, NAMES[:classes], multi=False)
    check_averages(figures, truth, predicted, classes)
    with warnings.catch_warnings(action="ignore"):  # about a single class
        assert figures["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, predicted), abs=1e-12)
        assert (
            confusion(truth, predicted, classes).tolist()
            == metrics.confusion_matrix(truth, predicted, labels=range(classes)).tolist()
        )
    if classes == 2:
        binary = [metrics.precision_score, metrics.recall_score, metrics.f1_score]
        mine = [figures[name] for name in ("precision", "recall", "f1")]
        assert mine == pytest.approx([figure(truth, predicted, zero_division=0) for figure in binary])
    else:
        assert figures["f1"] == figures["f1_macro"] and "precision" not in figures


@given(several_labels())
def test_figures_of_several_labels_are_those_of_scikit_learn(
    case: tuple[np.ndarray, np.ndarray, int],
) -> None:
    truth, predicted, classes = case
    figures = score_labels(truth, predicted, NAMES[:classes], multi=True)
    if classes > 1:  # of one column scikit-learn makes a binary task
        check_averages(figures, truth, predicted, classes)
    else:
        assert figures["f1"] == pytest.approx(metrics.f1_score(truth[:, 0], predicted[:, 0], zero_division=0))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_figures_that_are_listed_are_those_there_are(classes: int) -> None:
    one, several = np.zeros(4, dtype=np.int64), np.zeros((4, classes), dtype=bool)
    figures = {name for name in score_labels(one, one, NAMES[:classes], multi=False) if "/" not in name}
    assert figures == {*labels.SINGLE_FIGURES, *(labels.BINARY_FIGURES if classes == 2 else ())}
    figures = {
        name for name in score_labels(several, several, NAMES[:classes], multi=True) if "/" not in name
    }
    assert figures == set(labels.MULTI_FIGURES)


def test_figures_of_no_rows_are_unknown() -> None:
    for truth in (np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=bool)):
        figures = score_labels(truth, truth, ["no", "yes"], multi=truth.ndim == 2)
        assert figures and all(math.isnan(value) for value in figures.values())


@given(one_label())
def test_both_ways_to_average_over_labels_without_rows_are_told(
    case: tuple[np.ndarray, np.ndarray, int],
) -> None:
    truth, predicted, classes = case
    notes = labels.describe_averages(truth, predicted, NAMES[:classes], multi=False)
    missing = [name for index, name in enumerate(NAMES[:classes]) if index not in truth]
    some = f"label{'' if len(missing) == 1 else 's'} {', '.join(missing)}"
    said = [note for note in notes if note.startswith(f"no row has the {some},")]
    assert len(said) == bool(missing)
    if missing:
        default = metrics.f1_score(truth, predicted, average="macro", zero_division=0)
        assert said[0].endswith(f"f1_macro is {default:.4f}")
    assert ("precision, recall and f1 are those of the label b, the second of two" in notes) == (classes == 2)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_has_a_better_f1_than_the_one_that_is_chosen(rows: list[tuple[int, bool]]) -> None:
    probabilities, truth = np.array([row[0] / 8 for row in rows]), np.array([row[1] for row in rows])
    chosen = choose_thresholds(probabilities[:, None], truth[:, None])[0]
    every = {0.5, *(probability / 8 for probability in range(9))}
    f1 = {at: metrics.f1_score(truth, probabilities >= at, zero_division=0) for at in every}
    assert metrics.f1_score(truth, probabilities >= chosen, zero_division=0) == pytest.approx(
        max(f1.values())
    )
    if f1[0.5] == max(f1.values()):
        assert chosen == 0.5


def test_thresholds_lie_between_the_rows_that_they_part() -> None:
    probabilities = np.array([[0.9, 0.2, 0.7], [0.8, 0.1, 0.6], [0.3, 0.04, 0.9]], dtype=np.float32)
    truth = np.array([[True, True, False], [False, True, False], [False, False, False]])
    assert choose_thresholds(probabilities, truth) == pytest.approx([0.85, 0.07, 0.5])


def test_a_threshold_parts_probabilities_with_no_number_between() -> None:
    low = np.float64(0.7)
    high = np.nextafter(low, 1)
    (chosen,) = choose_thresholds(np.array([[high], [low]]), np.array([[True], [False]]))
    assert low < chosen <= high


def test_no_row_has_a_part_in_the_thresholds_that_decide_it() -> None:
    draw = np.random.default_rng(4)
    truth, probabilities = draw.random((60, 3)) < 0.4, draw.random((60, 3))
    ids = [f"row {number}" for number in range(60)]
    said = predict_by_other_rows(probabilities, truth, ids)
    for row in range(60):
        other = truth.copy()
        other[row] = ~other[row]
        assert (predict_by_other_rows(probabilities, other, ids)[row] == said[row]).all()


def test_thresholds_of_other_rows_flatter_chance_less_than_thresholds_of_the_same_rows() -> None:
    draw, ids = np.random.default_rng(5), [str(number) for number in range(80)]
    own, others, constant = [], [], []
    for _ in range(30):
        truth, probabilities = draw.random((80, 4)) < 0.2, draw.random((80, 4))
        flattered = probabilities >= choose_thresholds(probabilities, truth)
        predicted = (flattered, predict_by_other_rows(probabilities, truth, ids), np.ones_like(truth))
        for values, each in zip((own, others, constant), predicted):
            values.append(metrics.f1_score(truth, each, average="macro", zero_division=0))
    assert np.mean(own) > np.mean(constant) + 0.03 and np.mean(others) <= np.mean(constant)


def test_a_single_row_has_thresholds_of_one_half() -> None:
    said = predict_by_other_rows(np.array([[0.4, 0.6]]), np.array([[True, False]]), ["a"])
    assert said.tolist() == [[False, True]]
