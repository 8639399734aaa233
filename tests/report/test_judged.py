"""The table of models judged by their code."""

from dataclasses import dataclass
from typing import Any

import pytest

from etude.errors import InputError
from etude.report.judged import Executed, ExecutedSystem, Sampled


@dataclass(frozen=True)
class _Verdict:
    outcome: str
    words: str = ""


@dataclass(frozen=True)
class _Exercise:
    name: str


@dataclass(frozen=True)
class _Judged:
    exercise: _Exercise
    verdicts: tuple[_Verdict, ...]
    unsteady: int = 0
    samples: tuple[str, ...] = ("x", "y")

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.verdicts), sum(each.outcome == "passed" for each in self.verdicts)


def _system(name: str, *passed: int) -> ExecutedSystem:
    verdicts = [(_Verdict("passed"),) * count + (_Verdict("failed"),) * (2 - count) for count in passed]
    return ExecutedSystem(
        name, [_Judged(_Exercise(f"p{at}"), each, at == 1) for at, each in enumerate(verdicts)]
    )


def test_the_table_has_figures_and_outcomes_and_names_what_is_unsteady() -> None:
    sampled = Sampled(ks=(1, 2), samples=2)
    found = Executed(
        "rows.jsonl", [_system("a", 0, 1, 2, 1), _system("b", 2, 2, 2, 1)], sampled, "seccomp", ["p3"]
    )
    text = "\n".join(found.lines(100))
    assert "pass@1 of b less a: +0.375" in text and "own solution of 1 problem does not pass here: p3" in text
    assert "Samples of a that ended otherwise when run again: p1" in text
    values = found.to_dict()
    assert values["systems"][0]["figures"]["pass@1"][0] == 0.5
    assert values["systems"][0]["figures"]["pass@2"][0] == 0.75
    assert values["systems"][1]["against_baseline"]["pass@1"][0] == 0.375
    assert values["systems"][1]["outcomes"] == {"passed": 7, "failed": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ks": (2,)},
        {"ks": ()},
        {"ks": (0,)},
        {"samples": 2, "temperature": 0.0},
        {"ks": (1, 30), "samples": 20},
    ],
)
def test_settings_that_give_no_figure_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="--"):
        Sampled(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": float("nan")},
        {"temperature": -1.0},
        {"temperature": 1e9},
        {"samples": 0},
        {"samples": 10**9},
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        Sampled(**wrong)
