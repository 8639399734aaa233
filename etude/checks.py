"""Checks of a machine, one after another: what each saw; one that fails costs the others nothing."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from etude.errors import EtudeError
from etude.text import one_line


class Absent(Exception):
    """Something that a check needs is not on this machine."""


class Doubt(Exception):
    """Something that is allowed, and that the user should know."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check; `state` is passed, doubtful, failed or skipped."""

    name: str
    state: str
    words: str
    seconds: float


def run_all(checks: Iterable[tuple[str, Callable[[], str]]]) -> Iterator[Check]:
    """The outcome of each check: what it returned or raised, in a line of words."""
    for name, check in checks:
        begun = time.monotonic()
        try:
            state, words = "passed", check()
        except Absent as absent:
            state, words = "skipped", str(absent)
        except Doubt as doubt:
            state, words = "doubtful", str(doubt)
        except EtudeError as error:
            state, words = "failed", str(error)
        except Exception as error:  # whatever it is, the record says it and goes on
            state, words = "failed", f"{type(error).__name__}: {error}"
        yield Check(name, state, one_line(words, 600), round(time.monotonic() - begun, 2))


def require(holds: bool, words: str) -> None:
    """Fail a check with these words unless something holds. Raises: EtudeError."""
    if not holds:
        raise EtudeError(words)
