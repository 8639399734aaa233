"""Server-sent events: what came to the journals and leases of runs since a listener heard of them.

One look at the files of a run each half second serves all listeners, and there is none while nobody listens.
A listener has its own place in a journal and takes what is new when it can: nothing waits for a slow one.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio.to_thread
from starlette.responses import StreamingResponse

from etude.errors import EtudeError, InputError, MissingError
from etude.records import flat
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    Evaluation,
    Event,
    Finding,
    Generation,
    Judgement,
    Scores,
    plain,
)
from etude.records.journal import Lines, parse_line
from etude.records.store import Run
from etude.text import one_line, shorten
from etude.ui.columns import AXES, END, Columns, open_columns
from etude.ui.library import Library
from etude.ui.tables import is_missing

LOOK_SECONDS = 1.0
COMMENT_SECONDS = 15.0
_PATIENCE_SECONDS = 1.0  # of a look, with journals that were never read
_SLOWLY = 2  # looks between two at the lock of a run, and at all runs
_MOST_RUNS = 50
_MOST_BYTES = 4 << 20  # of a journal that a listener has missed; beyond it is told to ask again
_MOST_ROWS = 5000
_GOING_ON = ("running", "paused")
_REMOVED = "removed"  # the state of a run whose folder is gone
_MOST_FRAMES, _MOST_FRAME_BYTES = 200, 16 << 20  # made for one listener and kept for the others
_KINDS: dict[str, type[Event]] = {
    "findings": Finding, "controls": Control, "samples": Generation, "checkpoints": CheckpointSaved,
    "evaluations": Evaluation, "scores": Scores, "judgements": Judgement,
}  # fmt: skip


@dataclass
class _Seen:
    """The files of a run as the last look found them."""

    stamp: tuple[int, int, int] = (-1, 0, 0)  # size and time of the journal, time of the lease
    size: int = 0  # bytes of the journal whose points are in its columns
    part: float = 1.0  # of the journal that was read
    state: str = ""
    heartbeat: float = 0.0
    step: int = 0


@dataclass
class Watch:
    """The runs that somebody listens to, looked at by one task while there is anybody."""

    library: Library
    version_of: Callable[[], str]  # of the list of runs
    told: Callable[[Exception], None] = lambda error: None
    seen: dict[str, _Seen] = field(default_factory=dict)
    version: str = ""
    _listeners: Counter[str] = field(default_factory=Counter)
    _count: int = 0
    _task: asyncio.Task[None] | None = None
    _look: asyncio.Event = field(default_factory=asyncio.Event)
    _frames: OrderedDict[tuple[str, int, int], bytes] = field(default_factory=OrderedDict)

    async def listen(self, runs: Sequence[str], since: Sequence[int]) -> AsyncIterator[bytes]:
        """Events of runs from places in their journals on, for as long as they are taken."""
        places, told, version = dict(zip(runs, since)), dict[str, Any](), ""
        last = time.monotonic()
        with self._listening(runs):
            yield b"retry: 1000\n\n"
            while True:
                look = self._look
                for run in runs:
                    seen = self.seen.get(run)
                    if seen is None:
                        continue
                    size = seen.size  # a look may go on meanwhile
                    if size != places[run]:
                        yield await self._frames_of(run, places[run], size)
                        places[run] = size
                    # A process that hangs changes nothing but the age of its heartbeat.
                    age = time.time() - seen.heartbeat if seen.state in _GOING_ON else 0.0
                    now = (seen.state, seen.heartbeat, seen.step, age // COMMENT_SECONDS)
                    if told.get(run) != now:
                        told[run] = now
                        yield _frame("state", _state(run, seen))
                if self.version and version != self.version:
                    version = self.version
                    yield _frame("runs", {"version": version})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(look.wait(), COMMENT_SECONDS)
                if time.monotonic() - last > COMMENT_SECONDS:
                    last = time.monotonic()
                    yield b": here\n\n"

    @contextlib.contextmanager
    def _listening(self, runs: Sequence[str]) -> Iterator[None]:
        self._listeners.update(runs)
        self._count += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            self._listeners.subtract(runs)
            self._listeners += Counter()  # without those that nobody listens to any more
            self._count -= 1
            if not self._count and self._task:
                self._task.cancel()
                self._task = None
                self.seen.clear()
                self._frames.clear()

    async def _look_on(self) -> None:
        for count in range(1 << 62):
            runs, is_slow = list(self._listeners), count % _SLOWLY == 0
            if await anyio.to_thread.run_sync(self._look_at, runs, is_slow, abandon_on_cancel=True):
                self._look.set()
                self._look = asyncio.Event()
            for gone in self.seen.keys() - runs:
                self.seen.pop(gone, None)
            await asyncio.sleep(LOOK_SECONDS)

    def _look_at(self, runs: Sequence[str], is_slow: bool) -> bool:
        """Look at the files of runs; True if anything is new."""
        is_new, deadline = False, time.monotonic() + _PATIENCE_SECONDS
        for identity in runs:
            try:
                run = self.library.run(identity)
                seen = self.seen.get(identity) or _Seen()
                left = max(deadline - time.monotonic(), LOOK_SECONDS / 20)
                is_new = _look_at(run, seen, is_slow or identity not in self.seen, left) or is_new
                self.seen[identity] = seen
            except MissingError:  # it is not looked for again before it comes back
                known = self.seen.get(identity) or _Seen()
                if known.state != _REMOVED:
                    self.seen[identity] = _Seen(size=known.size, state=_REMOVED, step=known.step)
                    is_new = True
            except (EtudeError, OSError):  # damaged: the list of runs says so
                continue
            except Exception as error:  # a fault of etude costs the others nothing
                self.told(error)
        if is_slow:
            version = self.version_of()
            is_new = is_new or version != self.version
            self.version = version
        return is_new

    async def _frames_of(self, identity: str, place: int, size: int) -> bytes:
        """The events between two places of a journal; the same for all who ask for the same."""
        key = identity, place, size
        found = self._frames.get(key)
        if found is None:
            found = await anyio.to_thread.run_sync(self._make_frames, identity, place, size)
            self._frames[key] = found
            while (
                len(self._frames) > _MOST_FRAMES or sum(map(len, self._frames.values())) > _MOST_FRAME_BYTES
            ):
                self._frames.popitem(last=False)
        return found

    def _make_frames(self, identity: str, place: int, size: int) -> bytes:
        again = _frame("again", {"run": identity, "size": size})
        if not 0 <= size - place <= _MOST_BYTES:
            return again
        try:
            run = self.library.run(identity)
            entries = _entries(run, place, size)
            series = None if entries is None else _points(open_columns(run), place, size)
        except (EtudeError, OSError):
            return again
        if entries is None or series is None:
            return again
        told = {"run": identity, "size": size}
        frames = [_frame("points", told | {"series": series})] if series else []
        frames += [_frame("entries", told | entries)] if any(entries.values()) else []
        return b"".join(frames) or _frame("points", told | {"series": {}})


def listen(watch: Watch, runs: Sequence[str], since: Sequence[str]) -> StreamingResponse:
    """The events of runs by id, from places (bytes) in their journals on.

    Raises: InputError if there are too many, or a place is none; MissingError if a run is not there.
    """
    if len(runs) > _MOST_RUNS:
        raise InputError(f"{len(runs):,} runs were asked for; listen to up to {_MOST_RUNS}")
    if any(not place.isascii() or not place.isdecimal() or len(place) > 18 for place in since):
        raise InputError(f"since is {shorten(','.join(since), 40)!r}; give sizes of journals in bytes")
    for run in runs:
        watch.library.run(run)
    places = [*map(int, since), *[0] * len(runs)]
    runs = list(dict(zip(runs, places)))
    return StreamingResponse(
        watch.listen(runs, places), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


def _look_at(run: Run, seen: _Seen, is_slow: bool, seconds: float) -> bool:
    """Take in what is new of a run, for about so long; True if anything is."""
    before = (seen.size, seen.state, seen.heartbeat, seen.step)
    journal, lease = run.path / "journal.jsonl", run.path / "lease.json"
    beat = lease.lstat().st_mtime_ns  # first: of a run that was removed nothing is read
    found = journal.lstat() if journal.exists() else None
    stamp = (found.st_size, found.st_mtime_ns) if found else (0, 0)
    if stamp != seen.stamp[:2] or seen.part < 1:
        columns = open_columns(run)
        columns.update(seconds)
        seen.size, seen.part = columns.size, columns.part
        with columns.turn:
            count = columns.steps.count
            seen.step = int(columns.steps.rows(count - 1, count)[0, 0]) if count else 0
    if beat != seen.stamp[2] or is_slow:
        seen.heartbeat = float(run.lease.get("heartbeat", 0.0))
        seen.state = run.state
    seen.stamp = (*stamp, beat)
    return before != (seen.size, seen.state, seen.heartbeat, seen.step)


def _state(identity: str, seen: _Seen) -> dict[str, Any]:
    age = max(time.time() - seen.heartbeat, 0.0) if seen.heartbeat else None
    return {
        "run": identity, "state": seen.state, "heartbeat_age": age, "step": seen.step, "size": seen.size,
    }  # fmt: skip


def _points(columns: Columns, place: int, size: int) -> dict[str, Any] | None:
    """The points between two places of the journal, by series; None if there are too many to send."""
    series: dict[str, Any] = {}
    with columns.turn:
        for table in columns.tables:
            start, stop = (table.find(END, each, right=True) for each in (place, size))
            if stop - start > _MOST_ROWS:
                return None
            rows = table.rows(start, stop)
            for column, name in enumerate(table.columns[END + 1 :], END + 1):
                kept = rows[~is_missing(rows[:, column])]
                if len(kept) and name != "weight":
                    x = {axis: kept[:, index].tolist() for index, axis in enumerate(AXES)}
                    series[name] = {"x": x, "y": plain(kept[:, column].tolist())}
    return series


def _entries(run: Run, place: int, size: int) -> dict[str, Any] | None:
    """The other records between two places; None if a restart made earlier ones void."""
    found: dict[str, list[Any]] = {name: [] for name in _KINDS}
    lines = Lines(run.path / "journal.jsonl", place)
    for block in lines.read():
        for line in block:
            if flat.is_flat(line):
                continue
            with contextlib.suppress(ValueError, KeyError, RecursionError):
                event, moment = parse_line(line, run.path) or (None, 0.0)
                if isinstance(event, Attempt) and event.number > 1:
                    return None
                for name, kind in _KINDS.items():
                    if isinstance(event, kind):
                        found[name].append(_told(event, moment))
        if lines.size >= size:
            break
    return found


def _told(event: Event, moment: float) -> dict[str, Any]:
    told = asdict(event) | {"time": moment}  # type: ignore[arg-type]  # no step and no resource
    if isinstance(event, Control):
        told["words"] = one_line(f"step {event.step:,}: {event.action}: {event.reason}", 1000)
    return told


def _frame(name: str, value: dict[str, Any]) -> bytes:
    """An event; JSON has no line ends, so no text of a run can end it."""
    return f"event: {name}\ndata: {json.dumps(plain(value), allow_nan=False)}\n\n".encode()
