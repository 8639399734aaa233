"""Success criteria in words; tests/watch/test_criteria.py has a whole run."""

from etude.records.events import Judgement
from etude.report.criteria import newest


def test_the_last_judgement_of_a_step_counts() -> None:
    first, second, later = (
        Judgement(6, {"a": 1.0}, []),
        Judgement(6, {"a": 2.0}, ["a"]),
        Judgement(9, {"a": 0.0}, []),
    )
    assert newest([first, second, later]) == [second, later]
