"""Figures of runs, made once for a journal as it is, and their records, which are followed."""

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError, MissingError
from etude.records.events import Resource, Step
from etude.records.journal import Reader, read_after
from etude.records.ledger import Ledger
from etude.records.store import Run
from etude.report.history import History
from etude.report.summary import Summary, is_indexed, read_summary, summarize
from etude.ui.programs import Limits, problem_of, run_command

_FILES = ("journal.jsonl", "run.json", "resolved.toml", "best.json", "checkpoints")
_LARGE = 4 << 20  # bytes of a journal that another process reads, so that this one stays small and quick
_LIMITS = Limits(seconds=900.0, memory_bytes=16 << 30)
_REST = 60.0  # times the seconds that figures took pass before those of a run that goes on are made anew
_MOST_FOLLOWED = 8
_TAIL_BYTES = 1 << 15  # a hundred steps, from which the time left follows
Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Made:
    """The figures of a run as it was, or the problem; `took` are seconds, `at` is a monotonic time."""

    key: Key
    summary: Summary | None
    problem: str = ""
    took: float = 0.0
    at: float = 0.0


class Readings:
    """The figures and records of runs. Any thread may ask; what takes long is made by one of its own."""

    def __init__(self) -> None:
        self._turn, self._made = threading.Lock(), dict[Path, _Made]()
        self._waiting: OrderedDict[Path, Run] = OrderedDict()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._followed: OrderedDict[Path, _Followed] = OrderedDict()
        self.takers: list[Callable[[Run, Key, Summary], None]] = []  # of all figures that are made
        self.count = 0  # of the figures that were made, so that a page knows when there are new ones

    def summary(self, run: Run, patience_seconds: float = 0.0) -> Summary | None:
        """The figures of a run as `etude show` has them; older ones, or None, while they are being made.

        patience_seconds: wait so long for new ones. Raises: InputError if the folder is damaged.
        """
        key = key_of(run.path)
        if self._is_due(run.path, key) and not is_large(run):
            self._make_small(run)
        elif self._is_due(run.path, key):
            self.ask(run)
            with self._changed:
                self._changed.wait_for(lambda: not self._is_due(run.path, key), patience_seconds)
        made = self._made.get(run.path)
        if made and made.problem and made.key == key:
            raise InputError(made.problem)
        return made.summary if made else None

    def ask(self, run: Run) -> None:
        """Let a thread make the figures of a run if they are due. Raises: as `queue`."""
        self.queue(run)
        self.begin()

    def queue(self, run: Run) -> None:
        """Note that the figures of a run are to be made if they are due; those noted last come first.

        Raises: InputError if the folder is known to be damaged.
        """
        if run.path in self._waiting:
            return
        made, key = self._made.get(run.path), key_of(run.path)
        if made and made.problem and made.key == key:
            raise InputError(made.problem)
        if not self._is_due(run.path, key):
            return
        with self._changed:
            self._waiting[run.path] = run

    def begin(self) -> None:
        """Let a thread make the figures that are noted."""
        with self._changed:
            if self._waiting and self._worker is None:
                self._worker = threading.Thread(target=self._work, name="figures", daemon=True)
                self._worker.start()

    def told(self, run: Run) -> History:
        """The history of a run without its steps and resources: what was found, decided and measured.

        Each line is read once. Raises: InputError if it cannot be read.
        """
        with self._turn:
            followed = self._followed.pop(run.path, None)
            if followed is None or not followed.is_of(run.path):
                followed = _Followed(run)
            self._followed[run.path] = followed
            while len(self._followed) > _MOST_FOLLOWED:
                self._followed.popitem(last=False)
            return followed.history()

    def _is_due(self, path: Path, key: Key) -> bool:
        made = self._made.get(path)
        if made is None:
            return True
        return made.key != key and time.monotonic() - made.at > _REST * made.took

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._worker = None
                    return
                _, run = self._waiting.popitem()
            if not is_large(run):
                self._make_small(run)
            elif self._is_due(run.path, key_of(run.path)):
                self._make(Run(run.path))

    def _make_small(self, run: Run) -> None:
        with self._turn:
            if self._is_due(run.path, key_of(run.path)):
                self._make(Run(run.path))

    def _make(self, run: Run) -> None:
        began, key, summary, problem = time.monotonic(), key_of(run.path), None, ""
        try:
            summary = _summarize_elsewhere(run) if is_large(run) else summarize(run)
            for take in self.takers:
                take(run, key, summary)
        except (EtudeError, ValueError, OSError) as error:
            problem = str(error)
        now = time.monotonic()
        with self._changed:
            self._made[run.path] = _Made(key, summary, problem, now - began, now)
            self.count += 1
            self._changed.notify_all()


class _Followed:
    """The records of a run but its steps and resources, from the last byte on at each look."""

    def __init__(self, run: Run) -> None:
        self._run, self._node = Run(run.path), _node(run.path)
        self._reader = Reader(run.path / "journal.jsonl", numbers=False)
        self._key: Key | None = None
        self._history = History(self._run, Ledger([], [], []))

    def is_of(self, path: Path) -> bool:
        """True if the journal is still the file that was read, and not shorter."""
        return self._node[:1] == _node(path)[:1] and self._history.ledger.size <= _node(path)[1]

    def history(self) -> History:
        key = key_of(self._run.path)
        if key != self._key:
            with contextlib.suppress(MissingError):
                self._history = History(Run(self._run.path), self._reader.read())
            self._key = key
        return self._history


def last_steps(run: Run) -> list[Step | Resource]:
    """The steps and resources in the last lines of a journal; none if it cannot be read."""
    path = run.path / "journal.jsonl"
    with contextlib.suppress(InputError, OSError):
        place = max(path.stat().st_size - _TAIL_BYTES, 0)
        return [each for each in read_after(path, place)[0] if isinstance(each, Step | Resource)]
    return []


def key_of(path: Path) -> Key:
    """Sizes and times of the files that the figures of a run come from, and the state in its lease."""
    stamps: list[Any] = []
    for name in _FILES:
        try:
            status = os.lstat(f"{path}/{name}")
            stamps += [status.st_ino, status.st_size, status.st_mtime_ns]
        except OSError:
            stamps += [0, 0, 0]
    try:
        lease = Run(path).lease
        return (*stamps, lease["state"], lease.get("left"))
    except InputError:
        return (*stamps, "", None)


def is_large(run: Run) -> bool:
    """True for a run whose journal another process reads, so that this one stays small."""
    return _node(run.path)[1] > _LARGE and not is_indexed(run)


def _node(path: Path) -> tuple[int, int]:
    try:
        status = (path / "journal.jsonl").lstat()
        return status.st_ino, status.st_size
    except OSError:
        return 0, 0


def _summarize_elsewhere(run: Run) -> Summary:
    """The figures that `etude show --json` gives of a run. Raises: InputError; ValueError."""
    code, answer = run_command("show", str(run.path.absolute()), limits=_LIMITS)
    if code:
        raise InputError(problem_of(answer))
    return read_summary(answer)
