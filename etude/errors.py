"""Every error that etude raises for its users.

EtudeError               shown as one line, without a traceback
├── InputError           the user's recipe, data, file or command; exit code 2
│   ├── RecipeError      one or more problems of a recipe, each with its line
│   └── MissingError     a file that is not there
└── FaultError           something broke while running; exit code 1
    ├── StorageError     a disk that is full or fails
    ├── DamageError      a file of ours that fails its checksum
    ├── LostRankError    another rank of the run ended or does not answer; exit code 76
    └── ShortageError    a rank had no memory for a pass that all make together; exit code 77
"""

import contextlib
from collections.abc import Iterator, Sequence


class EtudeError(Exception):
    """An error that says in one line what is wrong, what was expected and what to do."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in place of a traceback."""
        return [f"error: {line}" for line in str(self).splitlines()]


class InputError(EtudeError):
    """Something the user gave cannot be used."""

    exit_code = 2


class Problem(str):
    """A line on a problem of a recipe, with the key that it is of, by its dots, and the line of the file.

    key, line  None where it is of the whole file
    """

    key: str | None
    line: int | None
    _where: int

    def __new__(cls, where: str, text: str, key: str | None, line: int | None) -> "Problem":
        """where: the key and its place in words, which the line begins with."""
        made = super().__new__(cls, f"{where} {text}")
        made.key, made.line, made._where = key, line, len(where) + 1
        return made

    def to_dict(self) -> dict[str, str | int | None]:
        """Plain values: key, line, text without them, and the remedy that it ends with, if it names one."""
        text, _, remedy = self[self._where :].rpartition("; ")
        return {
            "key": self.key,
            "line": self.line,
            "text": text or remedy,
            "remedy": remedy if text else None,
        }


class RecipeError(InputError):
    """A recipe with one or more problems; `problems` holds a line for each, a `Problem` if it has a place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class MissingError(InputError):
    """A file that the user named, or that belongs to what the user named, is not there."""


class FaultError(EtudeError):
    """Something failed that the user's input did not cause."""


class StorageError(FaultError):
    """A write to disk failed; what was there before is whole."""


class DamageError(FaultError):
    """A file written by etude is not what was written."""


class LostRankError(FaultError):
    """Another rank ended or does not answer, so this one cannot go on; the launcher of the ranks says why."""

    exit_code = 76


class ShortageError(FaultError):
    """This rank had no memory for what all ranks do together; they start again with smaller micro-batches."""

    exit_code = 77


@contextlib.contextmanager
def collect(problems: list[str]) -> Iterator[None]:
    """Add what an InputError of the block says to a list, each problem of its own, and go on behind it."""
    try:
        yield
    except RecipeError as error:
        problems += error.problems
    except InputError as error:
        problems.append(str(error))
