"""One bad input: how it is made, the command that meets it, and what the one line says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad input of the corpus.

    make   writes the input into an empty folder, in which the command then runs, and returns the words of the
           command
    says   a regular expression that the one line on stderr matches
    quick  answered well under 2 seconds, so that `make test` runs it too
    environment  variables beside those of the tests
    """

    name: str
    make: Callable[[Path], list[str]]
    says: str
    quick: bool = True
    environment: dict[str, str] = field(default_factory=dict)
