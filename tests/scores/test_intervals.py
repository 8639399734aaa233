"""Intervals, against what is known of the binomial, against resampling row by row, and against sacrebleu."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from etude.scores import labels
from etude.scores.answers import FIGURES, Answer
from etude.scores.intervals import (
    Difference,
    Interval,
    answer_bootstrap,
    answer_difference,
    bootstrap,
    label_bootstrap,
    label_difference,
    paired_difference,
    ratio_bootstrap,
    ratio_difference,
)

WORDS = ["def", "f", "(", "x", ")", ":", "return", "x", "+", "1", "\n", "pass"]


def make_answers(count: int) -> list[Answer]:
    draw = np.random.default_rng(5)
    texts = [" ".join(draw.choice(WORDS, 12)) for _ in range(count)] + ["x = 1"] * count
    references = [" ".join(text.split()[: 3 + index % 12]) or text for index, text in enumerate(texts)]
    return [Answer(text, reference, True) for text, reference in zip(texts, references)]


def are_close(a: Interval, b: Interval) -> bool:
    """Whether two intervals differ by no more than other resamples would."""
    near = 0.45 * max(a.standard_error, b.standard_error)
    return abs(a.low - b.low) <= near and abs(a.high - b.high) <= near


def test_the_interval_of_a_share_covers_it_as_often_as_it_says() -> None:
    draw, share, rows, covered = np.random.default_rng(1), 0.3, 100, 0
    for trial in range(200):
        right = draw.random(rows) < share
        interval = bootstrap(lambda chosen, right=right: right[chosen].mean(), rows, samples=200, seed=trial)
        covered += interval.low <= share <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_standard_error_of_a_share_is_that_of_the_binomial() -> None:
    right = np.arange(400) < 100
    interval = bootstrap(lambda chosen: right[chosen].mean(), 400, samples=4000)
    assert interval.standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=0.05)
    assert (interval.low, interval.high) == pytest.approx((0.2075, 0.2925), abs=0.006)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(50)
    first, second, other = (
        bootstrap(lambda chosen: values[chosen].mean(), 50, seed=seed) for seed in (3, 3, 4)
    )
    assert first == second != other


@pytest.mark.parametrize("rows", [0, 1])
def test_no_interval_is_made_up_from_one_row(rows: int) -> None:
    one, several = np.zeros(rows, dtype=np.int64), np.zeros((rows, 2), dtype=bool)
    answers = [Answer("a", "a", True)] * rows
    found = [
        bootstrap(lambda chosen: 1.0, rows),
        *label_bootstrap(one, one, ["a", "b"], multi=False, figures=["f1", "mcc"]).values(),
        *label_bootstrap(several, several, ["a", "b"], multi=True, figures=["f1"]).values(),
        *answer_bootstrap(answers, ["bleu", "exact_match"]).values(),
    ]
    assert len(found) == 6
    assert all(math.isnan(value) for interval in found for value in (interval.low, interval.high))
    assert paired_difference(lambda chosen: 1.0, lambda chosen: 0.0, rows).is_noise


def test_resamples_in_which_a_figure_is_unknown_do_not_count() -> None:
    interval = bootstrap(lambda chosen: math.nan if chosen[0] % 2 else 0.75, 10)
    assert interval == Interval(0.75, 0.75, 0.0)
    assert math.isnan(bootstrap(lambda chosen: math.nan, 10).low)


def test_a_difference_of_equal_systems_is_noise_and_a_steady_one_is_not() -> None:
    draw = np.random.default_rng(2)
    hard = draw.random(300)
    a, b, c = (hard < 0.5), (hard < 0.5) ^ (draw.random(300) < 0.1), (hard < 0.6)
    same = paired_difference(lambda i: a[i].mean(), lambda i: a[i].mean(), 300)
    assert (same.value, same.low, same.high) == (0, 0, 0) and same.is_noise
    assert paired_difference(lambda i: b[i].mean(), lambda i: a[i].mean(), 300).is_noise
    better = paired_difference(lambda i: c[i].mean(), lambda i: a[i].mean(), 300)
    assert better.value == c.mean() - a.mean() and not better.is_noise
    # On rows of their own the two intervals would overlap: only what is paired shows it.
    alone = [bootstrap(lambda i, x=x: x[i].mean(), 300, seed=x.sum()) for x in (a, c)]
    assert alone[0].high > alone[1].low


@pytest.mark.parametrize(("multi", "classes"), [(False, 2), (False, 4), (True, 3)])
def test_intervals_of_labels_are_those_of_resampling_the_rows(multi: bool, classes: int) -> None:
    draw, rows, names = np.random.default_rng(4), 150, ["a", "b", "c", "d"][:classes]
    if multi:
        truth = draw.random((rows, classes)) < 0.4
        predicted = truth ^ (draw.random((rows, classes)) < 0.2)
    else:
        truth = draw.integers(0, classes, rows)
        predicted = np.where(draw.random(rows) < 0.7, truth, draw.integers(0, classes, rows))
    figures = ["accuracy", "f1", "f1_micro", "precision_macro", "recall/b", *([] if multi else ["mcc"])]
    found = label_bootstrap(truth, predicted, names, multi=multi, figures=figures)
    for name in figures:
        by_rows = bootstrap(
            lambda i, name=name: labels.score_labels(truth[i], predicted[i], names, multi=multi)[name],
            rows,
            seed=9,
        )
        assert are_close(found[name], by_rows), name
    assert list(found) == figures


def test_a_rare_class_that_a_resample_lacks_does_not_pull_the_interval_below_the_figure() -> None:
    truth = np.arange(20)
    found = label_bootstrap(
        truth, truth, list("abcdefghijklmnopqrst"), multi=False, figures=["f1", "f1/a", "mcc"]
    )
    assert all(interval == Interval(1, 1, 0) for interval in found.values())


def test_a_class_that_no_row_has_counts_as_nothing_in_every_resample() -> None:
    truth = np.array([0, 1] * 30)
    found = label_bootstrap(truth, truth, ["a", "b", "never"], multi=False, figures=["f1_macro", "f1/never"])
    assert (found["f1_macro"].low, found["f1_macro"].high) == pytest.approx((2 / 3, 2 / 3))
    assert (found["f1/never"].low, found["f1/never"].high) == (0, 0)


def test_many_rows_are_resampled_in_blocks() -> None:
    truth = np.random.default_rng(0).random((6000, 20)) < 0.5
    found = label_bootstrap(
        truth, ~truth, [str(name) for name in range(20)], multi=True, figures=["accuracy", "f1"]
    )
    assert found["accuracy"] == found["f1"] == Interval(0, 0, 0)


def test_intervals_of_answers_are_those_of_resampling_the_answers() -> None:
    answers = make_answers(25)
    figures = ["exact_match", "edit_similarity", "bleu", "chrf", "parse_rate", "distinct_2"]
    found = answer_bootstrap(answers, figures, samples=800)
    for name in figures:
        figure = FIGURES[name]
        by_rows = bootstrap(
            lambda chosen, figure=figure: figure([answers[row] for row in chosen]),
            len(answers),
            seed=7,
            samples=400,
        )
        assert are_close(found[name], by_rows), name
        assert found[name].low <= figure(answers) <= found[name].high


def test_the_spread_of_bleu_and_chrf_is_that_of_sacrebleu() -> None:
    import sacrebleu

    answers = make_answers(100)
    texts, references = [answer.text for answer in answers], [[answer.reference for answer in answers]]
    found = answer_bootstrap(answers, ["bleu", "chrf"])
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        theirs = metric.corpus_score(texts, references, n_bootstrap=1000)
        assert (found[name].high - found[name].low) / 2 == pytest.approx(theirs._ci, rel=0.12)


@pytest.mark.parametrize("figure", ["bleu", "chrf", "exact_match", "distinct_2"])
def test_a_difference_of_answers_is_that_of_resampling_them_row_by_row(figure: str) -> None:
    a = make_answers(20)
    b = [Answer(answer.text[: 5 + 3 * (index % 5)], answer.reference, True) for index, answer in enumerate(a)]
    fast = answer_difference(a, b, figure, samples=300)
    of_a, of_b = (lambda chosen, side=side: FIGURES[figure]([side[row] for row in chosen]) for side in (a, b))
    slow = paired_difference(of_a, of_b, len(a), samples=300)
    assert fast.value == pytest.approx(slow.value)
    width = slow.high - slow.low
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.2 * width)
    same = answer_difference(a, a, figure, samples=50)
    assert (same.value, same.low, same.high, same.is_noise) == (0, 0, 0, True)


def test_a_ratio_of_sums_and_its_difference_have_the_spread_of_hand_made_resamples() -> None:
    draw = np.random.default_rng(3)
    a = np.column_stack([draw.gamma(2.0, 3.0, 50), draw.integers(1, 9, 50)])
    b = a + [[1.0, 0.0]] * draw.random((50, 1))
    chosen = [draw.integers(50, size=50) for _ in range(4000)]
    ratios = [a[at, 0].sum() / a[at, 1].sum() for at in chosen]
    found = ratio_bootstrap(a)
    assert found.standard_error == pytest.approx(np.std(ratios), rel=0.1)
    assert (found.low, found.high) == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=0.03)
    gap = ratio_difference(b, a)
    assert gap.value == pytest.approx((b[:, 0].sum() - a[:, 0].sum()) / a[:, 1].sum())
    paired = [(b[at, 0].sum() - a[at, 0].sum()) / a[at, 1].sum() for at in chosen]
    assert (gap.low, gap.high) == pytest.approx(np.quantile(paired, [0.025, 0.975]), rel=0.1)
    assert not gap.is_noise and math.isnan(ratio_bootstrap(a[:1]).low)


def test_a_difference_of_labels_is_that_of_resampled_rows() -> None:
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 3, 300)
    a, b = (np.where(draw.random(300) < share, truth, draw.integers(0, 3, 300)) for share in (0.8, 0.6))
    names = ["x", "y", "z"]

    def f1(said: labels.Ints) -> Callable[[labels.Ints], float]:
        return lambda at: labels.score_labels(truth[at], said[at], names, multi=False)["f1"]

    slow = paired_difference(f1(a), f1(b), 300)
    fast = label_difference(truth, a, b, names, multi=False, figure="f1")
    assert fast.value == pytest.approx(slow.value) and label_difference(
        truth, a, a, names, multi=False, figure="f1"
    ) == Difference(0.0, 0.0, 0.0)
    assert [fast.low, fast.high] == pytest.approx([slow.low, slow.high], abs=0.02)
