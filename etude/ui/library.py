"""The runs and sweeps of some folders by opaque ids, and the folders that are damaged, with their problems.

A look reads names, sizes and times; no journal, and no lock is held.
"""

import hashlib
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from etude.errors import InputError, MissingError
from etude.text import printable, shorten

if TYPE_CHECKING:  # they take half of the start of a server, whose first answer needs neither
    from etude.records.store import Run
    from etude.sweep.folder import SweepFolder

_LOOK_SECONDS = 1.0
_DEEPEST = 3  # folders below a given one: runs/, or sweeps/NAME/runs/
_MOST_ENTRIES = 100_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WATCHED = ("run.json", "journal.jsonl", "lease.json", "best.json", "resolved.toml", "checkpoints")
_Stamps = tuple[int, ...]  # inode, size and time of each file; zeros where there is none


@dataclass(frozen=True)
class Place:
    """The given folder in which a run lies, the id of its sweep, if it is a trial of one, and its state.

    mark       changes with the files that figures of the run come from
    state      as of the run; empty if it cannot be read
    heartbeat  Unix time; 0 if there was none
    """

    folder: str
    sweep: str | None
    mark: str
    state: str
    heartbeat: float


@dataclass(frozen=True)
class Look:
    """All that one look found: runs, the oldest first, their places, and sweeps by id; problems by name."""

    runs: dict[str, "Run"] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    sweeps: dict[str, "SweepFolder"] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class _Known:
    """A run of the last look, the stamps of its files with a checksum of them, and its lease then."""

    run: "Run"
    stamps: _Stamps
    mark: str
    state: str
    heartbeat: float


@dataclass
class _Found:
    """Run folders with the folder given and the sweep that they lie in, and sweeps, as they are come upon."""

    runs: list[tuple[str, str, str | None]] = field(default_factory=list)
    sweeps: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    entries: int = 0


class Library:
    """The runs and sweeps of folders, looked for again at most once a second.

    A folder may hold runs or sweeps, or be one. Each answer is of one look; any thread may ask.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._turn = threading.Lock()
        self._look_at, self._now = -_LOOK_SECONDS, Look()
        self._known: dict[str, _Known] = {}
        self._sweeps: dict[str, SweepFolder] = {}

    def look(self) -> Look:
        """All runs and sweeps, as found within the last second."""
        with self._turn:
            if time.monotonic() - self._look_at > _LOOK_SECONDS:
                self._now = self._read()
                self._look_at = time.monotonic()
            return self._now

    def runs(self) -> dict[str, "Run"]:
        """Every run that can be read, oldest first, by id."""
        return dict(self.look().runs)

    def run(self, identity: str) -> "Run":
        """The run of an id. Raises: MissingError."""
        try:
            return self.look().runs[identity]
        except KeyError:
            raise MissingError(f"there is no run {shorten(identity, 80)} here") from None

    def place(self, identity: str) -> Place:
        """The place of a run by its id. Raises: MissingError."""
        self.run(identity)
        return self.look().places[identity]

    def sweeps(self) -> dict[str, "SweepFolder"]:
        """Every sweep by id."""
        return dict(self.look().sweeps)

    def sweep(self, identity: str) -> "SweepFolder":
        """The sweep of an id. Raises: MissingError."""
        try:
            return self.look().sweeps[identity]
        except KeyError:
            raise MissingError(f"there is no sweep {shorten(identity, 80)} here") from None

    @property
    def damaged(self) -> dict[str, str]:
        """Problems of the folders that cannot be read, by name."""
        return dict(self.look().damaged)

    @property
    def version(self) -> str:
        """A text that changes with the files of any run, and when one comes, goes or dies."""
        return self.look().version

    def forget(self) -> None:
        """Look again at the next question, as after a run was started."""
        self._look_at = -_LOOK_SECONDS

    def _read(self) -> Look:
        found = _Found()
        for folder in self.folders:
            _walk(str(folder), printable(folder), None, _DEEPEST, found)
        damaged, digest = found.damaged, hashlib.sha256()
        known: dict[str, _Known] = {}
        where: dict[str, tuple[str, str | None]] = {}
        for path, given, sweep in found.runs:
            try:
                each = known[path] = self._open(path)
                where[path] = given, sweep
                digest.update(f"{path!r}{each.mark}{each.state}".encode("utf-8", "replace"))
            except InputError as error:
                damaged[_free_name(_name(path), damaged)] = shorten(error)
        self._known = known
        ids = _identify({path: str(each.run.info["id"]) for path, each in known.items()})
        sweep_ids = _identify({path: _name(path) for path in found.sweeps})
        digest.update(repr((sorted(damaged.items()), sorted(sweep_ids.values()))).encode("utf-8", "replace"))
        order = sorted(known, key=lambda path: (known[path].run.info["created"], path))
        if found.sweeps:
            from etude.sweep.folder import SweepFolder

            for path in found.sweeps:
                self._sweeps.setdefault(path, SweepFolder(Path(path)))
        return Look(
            {ids[path]: known[path].run for path in order},
            {ids[path]: _place(known[path], where[path], sweep_ids) for path in order},
            {sweep_ids[path]: self._sweeps[path] for path in found.sweeps},
            damaged,
            digest.hexdigest()[:16],
        )

    def _open(self, path: str) -> _Known:
        """The run of a folder, which keeps what it has read while its run.json is the same.

        Raises: InputError if it cannot be read.
        """
        from etude.records.lease import state_of
        from etude.records.store import Run

        stamps, before = _stamps(path), self._known.get(path)
        if before and before.stamps == stamps and before.state not in ("running", "paused"):
            return before  # a process that goes on may be killed, which changes no file
        run = before.run if before and before.stamps[:3] == stamps[:3] else Run(Path(path))
        _ = run.info
        mark = hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]
        try:
            lease = run.lease
            return _Known(run, stamps, mark, state_of(run.path, lease), float(lease.get("heartbeat", 0.0)))
        except InputError:
            return _Known(run, stamps, mark, "", 0.0)


def _place(known: _Known, where: tuple[str, str | None], sweep_ids: dict[str, str]) -> Place:
    given, sweep = where
    return Place(given, sweep_ids.get(sweep or ""), known.mark, known.state, known.heartbeat)


def _walk(folder: str, given: str, sweep: str | None, depth: int, found: _Found) -> None:
    """Collect the run folders and sweeps in a folder; no link is followed below the one that was given."""
    if _is_file(f"{folder}/run.json"):
        found.runs.append((folder, given, sweep))
        return
    if _is_file(f"{folder}/sweep.toml") and _is_folder(f"{folder}/runs"):
        if folder not in found.sweeps:
            found.sweeps.append(folder)
        _walk(f"{folder}/runs", given, folder, 1, found)
        return
    if not depth:
        return
    for name, problem in _folders(folder, found):
        if problem:
            found.damaged[_free_name(name, found.damaged)] = problem
        else:
            _walk(f"{folder}/{name}", given, sweep, depth - 1, found)


def _folders(folder: str, found: _Found) -> Iterator[tuple[str, str]]:
    """Names of the folders within one, each with its problem or an empty text."""
    name = _name(folder)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.entries += 1
                if found.entries > _MOST_ENTRIES:
                    yield name, f"over {_MOST_ENTRIES:,} entries; only those before were looked at"
                    return
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name, ""
                elif entry.is_symlink() and _is_file(f"{folder}/{entry.name}/run.json"):
                    yield entry.name, "it is a link, which is not followed; give the folder that it leads to"
    except FileNotFoundError:
        return
    except OSError as error:
        yield name, f"it cannot be listed: {error.strerror}"


def _identify(names: dict[str, str]) -> dict[str, str]:
    """Ids: the name where it is short, plain and unique, else 12 digits of the SHA-256 of the path."""
    counts = Counter(names.values())
    return {
        path: name
        if counts[name] == 1 and _ID.fullmatch(name)
        else hashlib.sha256(os.fsencode(Path(path).absolute())).hexdigest()[:12]
        for path, name in names.items()
    }


def _free_name(name: str, taken: dict[str, str]) -> str:
    shown = shorten(name, 100)
    return shown if shown not in taken else f"{shown} ({sum(each.startswith(shown) for each in taken) + 1})"


def _stamps(path: str) -> _Stamps:
    """Inode, size and time of the files of a run: a look at hundreds of runs is little else."""
    stamps: list[int] = []
    for name in _WATCHED:
        try:
            status = os.lstat(f"{path}/{name}")
            stamps += status.st_ino, status.st_size, status.st_mtime_ns
        except OSError:
            stamps += 0, 0, 0
    return tuple(stamps)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_file(path: str) -> bool:
    """True if there is an entry that is no folder; what it holds is judged when it is read."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False
