"""Baselines, on rows whose right answers are known by hand."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score

from etude.errors import InputError
from etude.scores.baselines import (
    best_constant,
    majority,
    most_frequent,
    nearest_neighbour,
    tfidf_logistic,
)
from etude.scores.labels import BINARY_FIGURES, MULTI_FIGURES, SINGLE_FIGURES, score_labels

LOOPS = [f"for item_{i} in items: total += item_{i}" for i in range(12)]
RAISES = [f"if not value_{i}: raise ValueError(name_{i})" for i in range(12)]
TRUTH = np.array([0] * 12 + [1] * 12)


def test_the_majority_says_the_most_frequent_class() -> None:
    assert majority(np.array([2, 0, 2, 1]), 3, multi=False).tolist() == [2, 2, 2]
    flags = np.array([[True, False, True], [True, False, False]])
    assert majority(flags, 2, multi=True).tolist() == [[True, False, True]] * 2
    assert majority(flags, 0, multi=True).shape == (0, 3)


def test_the_best_constant_of_two_equal_halves_is_the_label_that_f1_is_of() -> None:
    halves = np.array([0, 1, 1, 0])
    said = best_constant(halves, 3, ["no", "yes"], "f1", multi=False)
    assert said.tolist() == [1, 1, 1] and majority(halves, 3, multi=False).tolist() == [0, 0, 0]
    assert f1_score(halves, np.ones(4, dtype=int)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [*SINGLE_FIGURES, *BINARY_FIGURES])
def test_the_best_constant_of_one_label_is_that_of_brute_force(metric: str) -> None:
    draw = np.random.default_rng(1)
    for classes in (2,) * 20 if metric in BINARY_FIGURES else (2, 3, 5) * 7:
        truth = draw.choice(classes, 12, p=draw.dirichlet(np.ones(classes)))
        names = [str(number) for number in range(classes)]
        values = [
            score_labels(truth, np.full(12, label), names, multi=False)[metric] for label in range(classes)
        ]
        (said,) = best_constant(truth, 1, names, metric, multi=False)
        assert values[said] == max(values)


@pytest.mark.parametrize("metric", MULTI_FIGURES)
def test_the_best_constant_of_several_labels_is_that_of_brute_force_over_all_sets(metric: str) -> None:
    draw, names = np.random.default_rng(2), list("abcd")
    for _ in range(25):
        truth = draw.random((9, 4)) < draw.random(4)
        sets = [np.tile(np.array(flags, dtype=bool), (9, 1)) for flags in product((0, 1), repeat=4)]
        best = max(score_labels(truth, each, names, multi=True)[metric] for each in sets)
        said = best_constant(truth, 9, names, metric, multi=True)
        assert said.shape == (9, 4) and (said == said[0]).all()
        assert score_labels(truth, said, names, multi=True)[metric] == pytest.approx(best, abs=1e-12)


def test_of_equally_good_constants_the_most_accurate_is_taken() -> None:
    assert best_constant(np.array([0, 2, 2, 1]), 1, list("abc"), "mcc", multi=False).tolist() == [2]


def test_the_most_frequent_target_is_one_that_comes_again() -> None:
    assert most_frequent(["a", "b", "b", "c"]) == "b"
    assert most_frequent(["a", "b", "c"]) is None
    assert most_frequent(["a", "a", *map(str, range(300))]) is None


def test_words_and_marks_tell_classes_apart() -> None:
    said, probabilities = tfidf_logistic(
        LOOPS + RAISES, TRUTH, ["for a in b: c", "raise TypeError"], multi=False
    )
    assert said.tolist() == [0, 1] and probabilities.sum(axis=1) == pytest.approx([1, 1])
    marks, _ = tfidf_logistic(["a [ b"] * 5 + ["a ( b"] * 5, TRUTH[7:17], ["x ( y", "x [ y"], multi=False)
    assert marks.tolist() == [1, 0]


def test_several_labels_are_learnt_each_by_itself() -> None:
    texts = [
        *LOOPS,
        *RAISES,
        *(f"{a} {b}" for a, b in zip(LOOPS, RAISES)),
        *(f"pass # {i}" for i in range(12)),
    ]
    truth = np.array([[1, 0]] * 12 + [[0, 1]] * 12 + [[1, 1]] * 12 + [[0, 0]] * 12, dtype=bool)
    said, probabilities = tfidf_logistic(texts, truth, texts, multi=True)
    assert said.tolist() == truth.tolist() and ((probabilities >= 0.5) == said).all()


def test_a_class_that_was_never_seen_has_no_probability() -> None:
    truth = np.where(TRUTH == 1, 3, 0)
    said, probabilities = tfidf_logistic(LOOPS + RAISES, truth, ["raise"], multi=False, classes=6)
    assert probabilities.shape == (1, 6) and said.tolist() == [3]
    assert probabilities[0, [1, 2, 4, 5]].tolist() == [0, 0, 0, 0]


def test_labels_that_are_all_the_same_are_said_of_every_row() -> None:
    said, probabilities = tfidf_logistic(LOOPS, TRUTH[:12] + 1, ["x"], multi=False, classes=3)
    assert said.tolist() == [1] and probabilities.tolist() == [[0, 1, 0]]
    truth = np.column_stack([TRUTH > 9, TRUTH < 9, TRUTH == 1])
    said, probabilities = tfidf_logistic(LOOPS + RAISES, truth, ["raise", "for"], multi=True)
    assert probabilities[:, :2].tolist() == [[0, 1], [0, 1]] and said[:, 2].tolist() == [True, False]


def test_texts_without_words_are_given_the_shares_of_the_classes() -> None:
    said, probabilities = tfidf_logistic(
        ["", " ", "\n", ""], np.array([0, 1, 1, 1]), ["", "new"], multi=False
    )
    assert said.tolist() == [1, 1] and probabilities[:, 1] == pytest.approx([0.75, 0.75], abs=0.01)


def test_the_same_rows_give_the_same_probabilities_to_the_bit() -> None:
    first, second = (tfidf_logistic(LOOPS + RAISES, TRUTH, LOOPS, multi=False)[1] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_the_nearest_row_gives_its_target() -> None:
    targets = [str(i) for i in range(24)]
    assert nearest_neighbour(LOOPS + RAISES, targets, [RAISES[3], LOOPS[7], "nothing known"]) == [
        "15",
        "7",
        "0",
    ]
    assert (
        nearest_neighbour(LOOPS, targets, []) == []
        and nearest_neighbour([""], ["only"], ["x", ""]) == ["only"] * 2
    )


def test_the_nearest_row_is_the_same_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, queries = [str(i) for i in range(24)], [f"items ValueError item_{i} name_{i}" for i in range(12)]
    whole = nearest_neighbour(LOOPS + RAISES, targets, queries)
    monkeypatch.setattr("etude.scores.baselines._BLOCK_CELLS", 50)
    assert nearest_neighbour(LOOPS + RAISES, targets, queries) == whole and len(set(whole)) == 12


def test_no_rows_to_learn_from_is_said_in_a_line() -> None:
    none = np.zeros(0, dtype=np.int64)
    for attempt in (
        lambda: majority(none, 3, multi=False),
        lambda: best_constant(none, 3, ["a"], "f1", multi=False),
        lambda: most_frequent([]),
        lambda: tfidf_logistic([], none, ["x"], multi=False),
        lambda: nearest_neighbour([], [], ["x"]),
    ):
        with pytest.raises(InputError, match=r"^the training set has no rows[^\n]*$"):
            attempt()
