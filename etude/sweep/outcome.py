"""The end of an execution of a sweep, and what is said of it."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.text import plural


@dataclass(frozen=True)
class Outcome:
    """The end of an execution.

    is_stopped  a signal ended it, and the same command goes on
    censored    trials that were left at rungs
    is_reported  False if there is no report of it, or one that lacks damaged records
    """

    finished: int
    trials: int
    given_up: dict[str, str] = field(default_factory=dict)
    is_stopped: bool = False
    censored: int = 0
    is_reported: bool = True

    @property
    def is_whole(self) -> bool:
        """True if every trial ended, and the report has all of them."""
        return not self.given_up and self.is_reported


def describe_outcome(outcome: Outcome) -> Sequence[str]:
    """Sentences on the end of an execution."""
    censored = f", {outcome.censored:,} censored at rungs" * bool(outcome.censored)
    lines = [f"{outcome.finished:,} of {plural(outcome.trials, 'trial')} finished{censored}"]
    for reason in dict.fromkeys(outcome.given_up.values()):
        first, *others = [name for name, each in outcome.given_up.items() if each == reason]
        lines.append(f"not finished: {first}{f' and {len(others):,} more' * bool(others)}: {reason}")
    if outcome.is_stopped:
        lines.append("stopped; the same command goes on")
    return lines


def describe_exit(code: int) -> str:
    """The exit code of a process in words, that of a signal by its name."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
