"""Any log of a training, recognised by what it holds."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from etude import durable
from etude.errors import InputError
from etude.records.changes import attempts_of
from etude.records.journal import read_journal
from etude.watch.journal import points_of
from etude.watch.logs.content import open_log, read_text
from etude.watch.logs.find import find_logs
from etude.watch.logs.lines import read_lines
from etude.watch.logs.objects import read_json, read_json_lines
from etude.watch.logs.rows import Source, keep
from etude.watch.logs.steps import Run, runs_of
from etude.watch.logs.table import read_table
from etude.watch.logs.tensorboard import is_event_file, read_events
from etude.watch.logs.wandb import is_datastore, read_datastore
from etude.watch.point import Facts

_HEAD_BYTES = 64
_JOURNAL = '{"type": "journal"'
_LOOKED_FOR = (
    "trainer_state.json, TensorBoard events, a datastore of W&B, CSV, JSON Lines and lines as "
    "`step 10: loss 2.3` were looked for"
)


@dataclass(frozen=True)
class Log:
    """A log that was read.

    format  words for its form
    runs    that it holds, in the order of their first rows
    """

    path: Path
    format: str
    runs: list[Run]

    def facts(self, run: Run) -> Facts:
        """The facts of a run, as far as the log tells them."""
        return Facts(**run.facts)


def read_log(path: Path) -> Log:
    """Read a log, or the newest log of a folder.

    Raises: InputError if it is none, by what was looked for; nothing in a file is run or unpickled.
    """
    paths = find_logs(path) if path.is_dir() else [path]
    reader: Callable[[], Source]
    with open_log(paths[0]) as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if is_event_file(head):
            files = itertools.chain([file], _open_each(paths[1:]))
            reader = functools.partial(read_events, files)
        elif is_datastore(head):
            reader = functools.partial(read_datastore, file)
        else:
            text = read_text(paths[0], file)
            if text.startswith(_JOURNAL) and durable.is_plain(paths[0]):
                return _of_journal(paths[0])
            reader = functools.partial(_read, paths[0], text)
        with _named(paths[0]):
            source = reader()
            runs = runs_of(keep(source.rows))
    for run in runs:
        run.notes[:0] = source.notes
        run.facts = source.facts | run.facts
    return Log(paths[0], source.format, runs)


def _open_each(paths: Iterable[Path]) -> Iterator[IO[bytes]]:
    """One file after the other, of which there may be more than a process can have open."""
    for path in paths:
        with open_log(path) as file:
            yield file


def _read(path: Path, text: str) -> Source:
    """The rows of a text. Raises: InputError if it is no log."""
    readers: list[Callable[[], Source | None]] = [
        lambda: read_table(text), lambda: read_lines(text),
    ]  # fmt: skip
    if text.lstrip()[:1] in ("{", "["):
        readers[:0] = [lambda: read_json(path, text), lambda: read_json_lines(text)]
    for reader in readers:
        if source := reader():
            return source
    raise InputError(f"no log of a training: {_LOOKED_FOR}; no loss was found")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors in the block have the name of the log."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _of_journal(path: Path) -> Log:
    """The points of a journal of etude, which lies by itself."""
    events = [entry.event for entry in read_journal(path).entries]
    attempts = attempts_of(events)
    points = list(points_of(events))
    if not points:
        raise InputError(f"{path}: the journal has no steps yet")
    facts = {"steps": attempts[-1].steps, "steps_per_epoch": attempts[-1].steps_per_epoch}
    run = Run("", points, "step", {}, {**facts, "precision": attempts[-1].precision})
    return Log(path, "journal of etude", [run])
