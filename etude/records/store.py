"""Run folders: create, hold, open, list. The layout is a contract; DESIGN names every file."""

import atexit
import contextlib
import difflib
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from etude import durable
from etude.errors import InputError, MissingError, RecipeError, StorageError
from etude.recipe.load import load_recipe, recipe_hash, to_toml, values_hash
from etude.recipe.schema import Recipe
from etude.recipe.toml import parse
from etude.records import shape
from etude.records.environment import CONDITIONS
from etude.records.events import Event
from etude.records.folder import (
    BEST,
    fit_part,
    read_part,
    remove_leftovers,
    require_outside_runs,
    require_own,
    require_runs_folder,
)
from etude.records.journal import Journal, append_beside, read_journal, write_journal
from etude.records.lease import is_alive, is_locked, leave, lock_run, read_lease, state_of, write_lease
from etude.records.ledger import Ledger
from etude.records.lineage import FRESH, ORIGIN, FirstWeights
from etude.text import printable

FORMAT = 1
_HEARTBEAT_SECONDS = 5.0
_NAMED = 3  # runs named where a name is no run
_RECIPE_BYTES = 1 << 20
_NEW_RUN = re.compile(r"\.[a-z0-9][a-z0-9._-]*-[0-9a-f]{6}\.new")

_INFO = shape.Object(
    {"format": int, "id": str, "name": str, "recipe_hash": str, "created": str},
    {"parent": str | None, "weights": str | None, "day": str, "origin": ORIGIN, "replays": str},
)


@dataclass(frozen=True)
class Run:
    """A run folder, for reading, or the first bytes of its journal; takes no lock and writes nothing."""

    path: Path
    until: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """run.json: format, id, name, parent, recipe_hash, created."""
        info = read_part(self.path / "run.json", shape.Object())
        if isinstance(info.get("format"), int) and info["format"] > FORMAT:
            raise InputError(
                f"run {self.name} has format {info['format']}; this etude reads up to {FORMAT}; update etude"
            )
        return fit_part(info, _INFO, self.path / "run.json")

    @property
    def day(self) -> str:
        """The day (YYYY-MM-DD) of its creation, which its chat template writes on later days too."""
        return str(self.info.get("day") or self.info["created"][:10])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with every default and every auto value. Raises: InputError if it cannot be read."""
        path = self.path / "resolved.toml"
        durable.check_plain(path, follow=False)
        try:
            return load_recipe(path)
        except RecipeError as error:
            raise InputError(f"{path} cannot be read: {error.problems[0]}; restore it from a copy") from None

    @property
    def lease(self) -> dict[str, Any]:
        """lease.json: state, heartbeat (Unix time), host, pid."""
        return read_lease(self.path)

    @property
    def is_unfinished(self) -> bool:
        """True if training goes on with it: it has not finished, or its process was killed at its end."""
        lease = self.lease
        is_ours = lease.get("left") is False and lease.get("host") == socket.gethostname()
        return lease["state"] != "finished" or (is_ours and not is_alive(lease))

    def require_own_recipe(self) -> None:
        """Raises: InputError if resolved.toml no longer holds the recipe that the run was started with."""
        path = self.path / "resolved.toml"
        # It holds the recipe of run.json until the first step is prepared for, then automatic values too.
        known = {self.info.get("recipe_hash")}
        if (self.path / "environment.json").exists():
            known.add(self.environment.get("recipe_hash"))
        try:
            text = durable.read_text(path, most_bytes=_RECIPE_BYTES, follow=False)
            found = values_hash(parse(text, path.name))
        except (RecipeError, RecursionError, ValueError):
            found = "no TOML"
        if found in known or None in known:  # None: written before there was a hash
            return
        raise InputError(
            f"{path} was changed after run {self.name} had started; bring it back, or start a new run with "
            "the change: etude train RECIPE KEY=VALUE"
        )

    @property
    def state(self) -> str:
        """running, paused, finished, stopped, failed; killed if it goes on by its lease, without a lock."""
        return state_of(self.path, self.lease)

    @property
    def environment(self) -> dict[str, Any]:
        """environment.json: what the first attempt ran on and was made of."""
        return read_part(self.path / "environment.json", CONDITIONS)

    @property
    def best(self) -> dict[str, Any] | None:
        """best.json: checkpoint, metric, value, step; None before the first."""
        try:
            return read_part(self.path / "best.json", BEST)
        except MissingError:
            return None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def ledger(self, until: int | None = None) -> Ledger:
        return read_journal(self.path / "journal.jsonl", self.until if until is None else until)

    def _repr_html_(self) -> str:
        """The run in a cell of a notebook: figures, losses, newest texts and findings."""
        return str(import_module("etude.report.cell").run_html(self))  # by name, as it reads runs itself


class Tracker(Protocol):
    """Something else that wants the records as they come."""

    def write(self, event: Event) -> None: ...
    def close(self) -> None: ...


class RunWriter:
    """A run folder held by this process, the only one that writes; requests name it by its `attempt`."""

    def __init__(self, run: Run, lock: int) -> None:
        self.run, self.attempt = run, secrets.token_hex(4)
        self.trackers: list[Tracker] = []
        self._turn = threading.RLock()
        self._lock = lock
        self.journal = Journal(run.path / "journal.jsonl")
        self._log = durable.Appender(run.path / "log.txt")
        self._beat, self._state = 0.0, ""
        self.beat("running")

    def append(self, *events: Event) -> None:
        """Write records to the journal and pass them on; a tracker that fails is named once and dropped."""
        with self._turn:
            self.journal.append(*events)
            for tracker in list(self.trackers):
                try:
                    for event in events:
                        tracker.write(event)
                except Exception as error:
                    self.trackers.remove(tracker)
                    what = f"{type(tracker).__name__} failed and is off: {type(error).__name__}"
                    self.warn(f"tracker {what}: {error}")

    def log(self, text: str) -> None:
        """Write a line for people to log.txt."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._log.append(f"{stamp}  {printable(text)}\n".encode())

    def warn(self, text: str) -> None:
        """Say on stderr and in log.txt what went wrong beside the training; never fails itself."""
        with contextlib.suppress(StorageError):
            self.log(text)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()

    def sync(self) -> None:
        """Make journal and log durable; only the journal must be."""
        self.journal.sync()
        with contextlib.suppress(StorageError):
            self._log.sync()

    def beat(self, state: str = "running") -> None:
        """Say that the run is alive: at most every few seconds, but at once when its state changes."""
        if state != self._state or time.monotonic() - self._beat > _HEARTBEAT_SECONDS:
            self._beat, self._state = time.monotonic(), state
            write_lease(self.run.path, state, self.attempt)

    def close_trackers(self, *, but: Sequence[Tracker | None] = ()) -> None:
        """Close the trackers but some; one that fails is named."""
        for tracker in self.trackers:
            try:
                if tracker not in but:
                    tracker.close()
            except Exception as error:
                what = f"{type(tracker).__name__} failed when it was closed: {type(error).__name__}"
                self.warn(f"tracker {what}: {error}")

    def close(self, state: str) -> None:
        """End the attempt as finished, stopped, paused or failed, and let go of the folder.

        A finished run is taken as left once the process ends by itself.
        """
        try:
            self.close_trackers()
            self.sync()
            write_lease(self.run.path, state, self.attempt, is_over=True, head=self.journal.head())
            if state == "finished":
                atexit.register(leave, self.run.path, os.getpid())
        finally:
            self.journal.close()
            self._log.close()
            os.close(self._lock)


def create_run(
    runs: Path,
    recipe: Recipe,
    *,
    recipe_text: str | None = None,
    parent: str | None = None,
    inherited: Mapping[str, Any] = MappingProxyType({}),
    fill: Callable[[Path, str], None] = lambda folder, identity: None,
) -> RunWriter:
    """Make a run folder for a recipe and hold it.

    inherited  further values of run.json, as those that a fork takes over
    fill       writes more into the folder, before anybody sees it; called with the folder and the id

    Raises: StorageError, and what `fill` raises; nothing is left behind then.
    """
    require_runs_folder(runs)
    require_outside_runs(runs)
    for leftover in runs.glob(".*.new"):
        if _NEW_RUN.fullmatch(leftover.name):
            durable.remove_unheld(leftover)
    identity = f"{recipe.name}-{secrets.token_hex(3)}"
    info = {
        "format": FORMAT, "id": identity, "name": recipe.name, "parent": parent,
        # To the microsecond, as runs are sorted by it.
        "recipe_hash": recipe_hash(recipe), "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "day": date.today().isoformat(), **inherited,
    }  # fmt: skip
    with durable.new_folder(runs / identity) as hidden:
        durable.make_folder(hidden / "checkpoints")
        durable.write_file(hidden / "recipe.toml", (recipe_text or to_toml(recipe)).encode())
        durable.write_file(hidden / "resolved.toml", to_toml(recipe).encode())
        durable.write_json(hidden / "run.json", info)
        write_journal(hidden / "journal.jsonl", ())
        fill(hidden, identity)
        write_lease(hidden, "running")
        lock = lock_run(hidden)
    return RunWriter(Run(runs / identity), lock)


@contextlib.contextmanager
def alone(runs: Path) -> Iterator[None]:
    """Hold a folder of runs while a run is looked for and made, so that two commands do not make one each."""
    require_runs_folder(runs)
    require_outside_runs(runs)
    durable.make_folder(runs)
    descriptor = durable.open_lock(runs / ".lock")
    try:
        durable.lock(descriptor, runs / ".lock", wait=True)
        yield
    finally:
        os.close(descriptor)


def hold_run(run: Run) -> RunWriter:
    """Hold an existing run folder to write into it; what killed processes left half-written in it is removed.

    Raises: InputError if another process holds it, or a part of it would lead elsewhere.
    """
    require_own(run.path)
    lock = lock_run(run.path)
    try:
        remove_leftovers(run.path)
        return RunWriter(run, lock)
    except BaseException:
        os.close(lock)
        raise


def open_run(run: str | Path, runs: Path | None = None) -> Run:
    """Open a run by folder, or by id, unique prefix or recipe name (its newest) under `runs`.

    Raises: InputError with the nearest names if there is none.
    """
    path, shown = Path(run), str(run)[:80]
    if str(run) and _is_run(path):
        opened = Run(path)
        _ = opened.info  # which raises where it cannot be read
        return opened
    whole, damaged = read_runs(runs or Path("runs"))
    found = [candidate for candidate in whole if path.name and candidate.name.startswith(path.name)]
    exact = [
        candidate for candidate in found if candidate.name == path.name or candidate.info["name"] == path.name
    ]
    if len(str(run)) == len(path.name) and (exact or len(found) == 1):
        return (exact or found)[-1]
    if path.name in damaged:
        raise InputError(damaged[path.name])
    names = [candidate.name for candidate in found or whole]
    near = difflib.get_close_matches(path.name, names, n=_NAMED) or names[: -_NAMED - 1 : -1]
    more = f" and {len(names) - len(near):,} more" if len(names) > len(near) else ""
    known = f"there are {', '.join(near)}{more}; see etude runs" if near else "see etude runs, or start one"
    raise InputError(f"there is no run {shown}; {known}")


def read_runs(runs: Path) -> tuple[list[Run], dict[str, str]]:
    """Every run under a folder, oldest first, and the problems of those that cannot be read, by name.

    Folders that are no runs are passed over. Raises: InputError if `runs` is there and no folder.
    """
    require_runs_folder(runs)
    found, damaged = [], {}
    for path in runs.iterdir() if runs.is_dir() else ():
        if path.name.startswith(".") or not _is_run(path):
            continue
        try:
            found.append((Run(path).info["created"], path.name, Run(path)))
        except InputError as error:
            damaged[path.name] = str(error)
    return [run for _, _, run in sorted(found, key=lambda each: each[:2])], damaged


def list_runs(runs: Path) -> list[Run]:
    """Every run under a folder that can be read, oldest first."""
    return read_runs(runs)[0]


def find_runs(runs: Path, recipe: Recipe) -> list[Run]:
    """Every run of the same recipe under a folder, oldest first."""
    wanted = recipe_hash(recipe)
    return [run for run in list_runs(runs) if run.info.get("recipe_hash") == wanted]


def find_unfinished(
    runs: Path, recipe: Recipe, first: FirstWeights = FRESH, replayed: str | None = None
) -> Run | None:
    """The newest unfinished run of the same recipe and first weights; forks are continued by name only.

    replayed: the id of the run that it makes again, if it does
    """
    alike = find_runs(runs, recipe)
    alike = [run for run in alike if run.info.get("replays") == replayed]
    found = [run for run in alike if first.are_of(run.info) and "origin" not in run.info]
    return next((run for run in reversed(found) if run.is_unfinished), None)


def append_note(run: Run, event: Event) -> None:
    """Append a record to a run, also while another process is writing it: a whole line in one write.

    Raises: InputError if a part of the run would lead elsewhere; StorageError.
    """
    require_own(run.path)
    if is_locked(run.path):
        append_beside(run.path / "journal.jsonl", event)
    else:
        lock = lock_run(run.path)
        try:
            journal = Journal(run.path / "journal.jsonl")
            journal.append(event)
            journal.sync()
            journal.close()
        finally:
            os.close(lock)


def _is_run(path: Path) -> bool:
    """True if a folder has a run.json, or something in its place."""
    try:
        return os.path.lexists(path / "run.json") and not (path / "run.json").is_dir()
    except (OSError, ValueError):
        return False
