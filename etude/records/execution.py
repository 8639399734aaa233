"""The record of programs that a model wrote and that were run; one of the types of `events.py`."""

from dataclasses import dataclass
from typing import Annotated, Any

from etude.records.shape import at_least

_Positive = Annotated[int, at_least(1)]


@dataclass(frozen=True)
class Execution:
    """Programs that the model wrote after `step`, run against the tests of problems.

    problems  hash of the problems and their tests
    passed    samples of each problem, in their order, that passed, of `samples` of each
    ks        of pass@k
    settings  by which samples were drawn
    sandbox   the confinement of the programs; outcomes: samples by verdict
    unsteady  samples that ended otherwise when they ran again
    """

    step: int
    problems: str
    passed: list[int]
    samples: _Positive
    ks: list[_Positive]
    settings: dict[str, Any]
    sandbox: str
    outcomes: dict[str, int]
    unsteady: int = 0

    def is_consistent(self) -> bool:
        """True if no problem has more samples that passed than samples, and each k is one of them."""
        counts = all(0 <= passed <= self.samples for passed in self.passed)
        return counts and bool(self.passed and self.ks) and max(self.ks) <= self.samples
