"""Several raters: a verdict only where they agree."""

import math

from etude.records.events import Rating
from etude.report.raters import LEAST_ALPHA, compare_raters


def _ratings(table: dict[str, str], against: str | None = None) -> list[Rating]:
    """Ratings of one letter each, of texts in turn; a blank is none."""
    scores = {"w": 0.0, "=": 0.5, "b": 1.0, **{str(n): float(n) for n in range(1, 6)}}
    return [
        Rating(5, f"prompt {place}", f"text {place}", rater, scores[each], against)
        for rater, row in table.items()
        for place, each in enumerate(row)
        if each != " "
    ]


def test_raters_that_agree_have_a_verdict_with_its_interval() -> None:
    found = compare_raters(_ratings({"anna": "512345123451", "bo": "512345123452", "cy": "5123 5123451"}))
    assert found.agreement.low > LEAST_ALPHA and (found.agreement.items, found.agreement.ratings) == (12, 35)
    value, low, high = found.value
    assert low < value < high and found.verdict().startswith("3.03 [") and found.verdict().endswith("of 5.")
    assert [each.scores for each in found.disagreements] == [{"anna": 1, "bo": 2, "cy": 1}]


def test_raters_that_do_not_agree_have_none_and_are_named_where_they_differ() -> None:
    found = compare_raters(_ratings({"anna": "515151515151", "bo": "551155115511"}))
    assert not found.allows_verdict and found.verdict().startswith("No verdict: raters may agree too little")
    assert len(found.disagreements) == 5 and "anna" in found.lines()[1] and "bo" in found.lines()[1]


def test_one_rater_or_one_value_says_nothing_of_agreement() -> None:
    assert (
        compare_raters(_ratings({"anna": "12345"})).verdict()
        == "No verdict: no text has ratings of two raters."
    )
    same = compare_raters(_ratings({"anna": "444", "bo": "444"}))
    assert math.isnan(same.agreement.alpha) and same.verdict().startswith(
        "No verdict: all ratings are the same"
    )
    assert compare_raters([]).raters == []


def test_two_runs_are_told_apart_only_beyond_the_interval() -> None:
    better = {"anna": "bbbbbbbbbwbbbbbb", "bo": "bbbbbbbbbwbbbbbb"}
    assert (
        compare_raters(_ratings(better, "Other"), against="Other")
        .verdict()
        .startswith("Better than Other: 0.94")
    )
    even = {"anna": "bwbwbwbwbwbwbwbw", "bo": "bwbwbwbwbwbwbwbw"}
    assert (
        compare_raters(_ratings(even, "Other"), against="Other")
        .verdict()
        .startswith("No difference from Other")
    )
    assert compare_raters(_ratings(even, "other")).raters == []
