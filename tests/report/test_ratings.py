"""Counts of ratings, by hand."""

from etude.records.events import Rating
from etude.report.ratings import Ratings, count_ratings


def rating(score: float, rater: str = "anna", against: str | None = None) -> Rating:
    return Rating(5, "prompt", "text", rater, score, against)


def test_the_mean_is_of_scores_and_duels_are_counted_for_each_other_run() -> None:
    given = [rating(4), rating(1, "bo"), rating(5)]
    given += [rating(score, against="b-2") for score in (1, 1, 0.5, 0)] + [rating(0, "cy", "a-1")]
    found = count_ratings(given)
    assert found == Ratings(8, 10 / 3, ["anna", "bo", "cy"], {"a-1": (0, 0, 1), "b-2": (2, 1, 1)})
    assert str(found) == (
        "3.33 of 5, mean of 3 ratings; better than a-1 0, as good 0, worse 1 time; "
        "better than b-2 2, as good 1, worse 1 time (by anna, bo, cy)"
    )


def test_a_run_that_nobody_rated_or_only_against_others_has_no_mean() -> None:
    assert str(count_ratings([])) == "" and count_ratings([]).mean is None
    duels = count_ratings([rating(0.5, against="b")])
    assert duels.mean is None and str(duels) == "better than b 0, as good 1, worse 0 times (by anna)"


def test_names_of_raters_and_runs_stay_on_the_line() -> None:
    text = str(count_ratings([rating(1, "a\x1b[2J\nb", "c\nd")]))
    assert "\n" not in text and "\x1b" not in text
