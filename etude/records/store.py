"""Run folders: create, lock, open, list. The layout is a contract; DESIGN names every file."""

import fcntl
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from etude import durable
from etude.errors import InputError
from etude.recipe.load import load_recipe, recipe_hash, to_toml
from etude.recipe.schema import Recipe
from etude.records.events import Event
from etude.records.journal import Journal, Ledger, append_beside, read_journal

FORMAT = 1
_HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """A run folder, for reading; takes no lock and writes nothing."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """run.json: format, id, name, parent, recipe_hash, created."""
        return _read_json(self.path / "run.json")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with every default and every auto value."""
        return load_recipe(self.path / "resolved.toml")

    @property
    def lease(self) -> dict[str, Any]:
        """lease.json: state, heartbeat (Unix time), host, pid."""
        return _read_json(self.path / "lease.json")

    @property
    def state(self) -> str:
        """running, paused, finished, stopped, failed; killed if it says running but nobody holds the lock."""
        state = str(self.lease["state"])
        return "killed" if state == "running" and not is_locked(self.path) else state

    @property
    def environment(self) -> dict[str, Any]:
        return _read_json(self.path / "environment.json")

    @property
    def best(self) -> dict[str, Any] | None:
        """best.json: checkpoint, metric, value, step; None before the first."""
        path = self.path / "best.json"
        return _read_json(path) if path.exists() else None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def ledger(self) -> Ledger:
        return read_journal(self.path / "journal.jsonl")


class Tracker(Protocol):
    """Something else that wants the records as they come."""

    def write(self, event: Event) -> None: ...

    def close(self) -> None: ...


class RunWriter:
    """A run folder held by this process: the only one that writes into it."""

    def __init__(self, run: Run, lock: int) -> None:
        self.run = run
        self.trackers: list[Tracker] = []
        self._lock = lock
        self._journal = Journal(run.path / "journal.jsonl")
        self._log = durable.Appender(run.path / "log.txt")
        self._beat = 0.0
        self.beat("running")

    def append(self, *events: Event) -> None:
        """Write records to the journal and pass them on; a tracker that fails is named once and dropped."""
        self._journal.append_all(list(events))
        for tracker in list(self.trackers):
            try:
                for event in events:
                    tracker.write(event)
            except Exception as error:
                self.trackers.remove(tracker)
                self.log(f"tracker {type(tracker).__name__} failed and is off: {type(error).__name__}: {error}")

    def log(self, text: str) -> None:
        """Write a line for people to log.txt."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._log.append(f"{stamp}  {text}\n".encode("utf-8", "backslashreplace"))

    def sync(self) -> None:
        """Make journal and log durable."""
        self._journal.sync()
        self._log.sync()

    def beat(self, state: str = "running") -> None:
        """Say that the run is alive: at most every few seconds, but at once when its state changes."""
        now = time.monotonic()
        if state != "running" or now - self._beat > _HEARTBEAT_SECONDS:
            self._beat = now
            _write_lease(self.run.path, state)

    def close(self, state: str) -> None:
        """End the attempt as finished, stopped or failed, and let go of the folder."""
        try:
            for tracker in self.trackers:
                tracker.close()
            self.sync()
            self.beat(state)
        finally:
            self._journal.close()
            self._log.close()
            os.close(self._lock)


def create_run(runs: Path, recipe: Recipe, *, recipe_text: str | None = None, parent: str | None = None) -> RunWriter:
    """Make a run folder for a recipe and hold it. Raises: StorageError; nothing is left behind then."""
    identity = f"{recipe.name}-{secrets.token_hex(3)}"
    hidden, path = runs / f".{identity}.new", runs / identity
    durable.make_folder(hidden / "checkpoints")
    info = {
        "format": FORMAT, "id": identity, "name": recipe.name, "parent": parent,
        "recipe_hash": recipe_hash(recipe), "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    try:
        durable.write_file(hidden / "recipe.toml", (recipe_text or to_toml(recipe)).encode())
        durable.write_file(hidden / "resolved.toml", to_toml(recipe).encode())
        durable.write_json(hidden / "run.json", info)
        _write_lease(hidden, "running")
        lock = _lock(hidden)
        durable.rename_folder(hidden, path)
    except BaseException:
        durable.remove_folder(hidden)
        raise
    return RunWriter(Run(path), lock)


def hold_run(run: Run) -> RunWriter:
    """Hold an existing run folder to write into it. Raises: InputError if another process does."""
    return RunWriter(run, _lock(run.path))


def open_run(run: str | Path, runs: Path | None = None) -> Run:
    """Open a run by folder, or by id, unique prefix or recipe name (its newest) under `runs`.

    Raises: InputError with the nearest names if there is none.
    """
    path = Path(run)
    if (path / "run.json").is_file():
        return _checked(Run(path))
    found = [candidate for candidate in list_runs(runs or Path("runs")) if candidate.name.startswith(path.name)]
    exact = [candidate for candidate in found if candidate.name == path.name or candidate.info["name"] == path.name]
    if len(str(run)) == len(path.name) and (exact or len(found) == 1):
        return _checked((exact or found)[-1])
    known = ", ".join(candidate.name for candidate in (found or list_runs(runs or Path("runs")))[-3:])
    raise InputError(f"there is no run {run}; {f'there are {known}' if known else 'see `etude runs`, or start one'}")


def list_runs(runs: Path) -> list[Run]:
    """Every run under a folder, oldest first; folders that are no runs are passed over."""
    if not runs.is_dir():
        return []
    found = [Run(path) for path in runs.iterdir() if not path.name.startswith(".") and (path / "run.json").is_file()]
    return sorted(found, key=lambda run: (run.info.get("created", ""), run.name))


def find_runs(runs: Path, recipe: Recipe) -> list[Run]:
    """Every run of the same recipe under a folder, oldest first."""
    wanted = recipe_hash(recipe)
    return [run for run in list_runs(runs) if run.info.get("recipe_hash") == wanted]


def find_unfinished(runs: Path, recipe: Recipe) -> Run | None:
    """The newest run of the same recipe that has not finished."""
    return next((run for run in reversed(find_runs(runs, recipe)) if run.lease["state"] != "finished"), None)


def is_locked(path: Path) -> bool:
    """Whether some process holds the run folder."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def append_note(run: Run, event: Event) -> None:
    """Append a record to a run, also while another process is writing it: a whole line in one write."""
    if is_locked(run.path):
        append_beside(run.path / "journal.jsonl", event)
    else:
        lock = _lock(run.path)
        journal = Journal(run.path / "journal.jsonl")
        journal.append(event)
        journal.sync()
        journal.close()
        os.close(lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        lease = _read_json(path / "lease.json")
        raise InputError(
            f"run {path.name} is in use by process {lease.get('pid')} on {lease.get('host')}; "
            "wait for it or stop it, or start another run with --new"
        ) from None
    return descriptor


def _write_lease(path: Path, state: str) -> None:
    lease = {"state": state, "heartbeat": round(time.time(), 1), "host": socket.gethostname(), "pid": os.getpid()}
    durable.write_json(path / "lease.json", lease)


def _checked(run: Run) -> Run:
    if run.info.get("format", 0) > FORMAT:
        raise InputError(
            f"run {run.name} has format {run.info['format']}; this etude reads up to {FORMAT}; update etude"
        )
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; the folder is no run, or a part of one is missing") from None
    except ValueError:
        raise InputError(f"{path} is damaged: it is no JSON; restore it from a copy") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object; restore it from a copy")
    return value
