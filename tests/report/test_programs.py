"""Programs of runs as a report and a comparison tell them."""

from typing import Any

from etude.records.events import Evaluation, Execution
from etude.report.programs import compare_programs, describe_programs, gain
from etude.report.told import take_marks


class _History:
    """Events of a run."""

    def __init__(self, name: str, events: list[Any], best: int | None = None) -> None:
        self._events, self.best = events, None if best is None else Evaluation(best, 1, 1, None, 1, 1, True)
        self.run = type("Run", (), {"name": name})

    def events(self, kind: type) -> list[Any]:
        return [each for each in self._events if isinstance(each, kind)]


def _executed(step: int, passed: list[int], problems: str = "a") -> Execution:
    outcomes = {"passed": sum(passed), "failed": 4 * len(passed) - sum(passed)}
    return Execution(step, problems, passed, 4, [1, 2], {"temperature": 0.8}, "Landlock 7", outcomes, 1)


def test_a_report_tells_first_and_best_with_intervals_over_problems() -> None:
    history: Any = _History(
        "one", [_executed(0, [0, 1] * 10), _executed(5, [4, 2] * 10), _executed(9, [1] * 20)], 5
    )
    text, places = take_marks("\n\n".join(describe_programs(history)))
    assert "before training, step 0" in text and "best, step 5" in text and "last, step 9" in text
    assert "pass@1 of step 5 less step 0: +0.625 [" in text and "beyond the noise" in text
    assert (
        "4 samples of each of 20 problems, by temperature 0.8" in text and "1 sample ended otherwise" in text
    )
    (figure,) = places[2].figures  # pass@1 of the best: 3 of 4 samples
    assert (figure.name, figure.value, figure.source[0].first) == ("pass@1", 0.75, 5)
    assert list(describe_programs(_History("none", []))) == []  # type: ignore[arg-type]


def test_runs_compare_problem_by_problem_or_not_at_all() -> None:
    one: Any = _History("one", [_executed(0, [0, 1])])
    two: Any = _History("two", [_executed(0, [1, 1]), _executed(4, [2, 3])], 4)
    other: Any = _History("other", [_executed(0, [1, 1], "b")])
    none: Any = _History("none", [])
    first, second = compare_programs([one, two, none, other])
    assert first.startswith("pass@1 of two less one: +0.500 [") and first.endswith("over 2 problems.")
    assert second == "The programs of other less one do not compare: other problems, samples or settings."
    assert gain(_executed(0, [4, 4]), _executed(0, [0, 0])).value == 1
