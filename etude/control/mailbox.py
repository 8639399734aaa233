"""Requests to a run that is going on: lines of control.jsonl, each answered by a record of the journal."""

import contextlib
import getpass
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.records.folder import require_own
from etude.records.lease import is_locked
from etude.records.shape import Object, fit, matching, one_of
from etude.records.store import Run

FILE = "control.jsonl"
ACTIONS = ("stop", "pause", "resume", "checkpoint", "evaluate", "generate", "set", "note", "back")
_WITH_TEXT = ("generate", "note")
_LONGEST_LINE = 1 << 16  # bytes
_BLOCK_BYTES = 1 << 20
_LONGEST = {"reason": 200, "key": 200, "who": 200, "channel": 40, "text": 10_000}  # characters
_MOST_STALE_BYTES = 1 << 24
_MOST_PROBLEMS = 20
_NAME = matching("[a-z0-9-]{1,40}")
_REQUEST = Object(
    {"id": Annotated[str, _NAME], "action": Annotated[str, one_of(*ACTIONS)]},
    {
        "key": (str, None), "value": (float, str, bool, None), "reason": str, "step": (int, None),
        "text": str, "release": bool, "who": str, "channel": str, "attempt": (str, None),
    },
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request by its id.

    `set` gives a key of the recipe another value, `back` does so from the checkpoint of an earlier step on.

    text     the prompt of `generate`, the words of `note`
    release  of `pause`: end the process, so that the machine is free for others
    who      user@host, and `channel` the way it came: cli, view, python ...
    attempt  of the run, as its lease names it; for any other the request is void
    """

    id: str
    action: str
    key: str | None = None
    value: Any = None
    reason: str = ""
    step: int | None = None
    text: str = ""
    release: bool = False
    who: str = ""
    channel: str = ""
    attempt: str | None = None

    def __str__(self) -> str:
        """The request in words, as `set optim.learning_rate = 0.001`."""
        if self.key is not None:
            back = "" if self.step is None else f" from step {self.step:,}"
            return f"{self.action}{back} {self.key} = {json.dumps(self.value)}"
        return f"{self.action} and release" if self.release else self.action


def post(run: Run, action: str, *, channel: str = "python", **values: Any) -> str:
    """Ask a run that is going on for an action; returns the id by which the journal answers.

    values: of `Request`, as key, value, reason, step, text and release

    Raises: InputError if the run is not going on, or nobody could read the request; StorageError.
    """
    lease, state = run.lease, run.state
    if not is_going_on(run):
        raise InputError(f"run {run.name} is {state}; only a run that is going on takes requests")
    request = Request(
        secrets.token_hex(6), action, who=who_asks(), channel=channel, attempt=lease.get("attempt"), **values
    )
    values = {"time": round(time.time(), 3), **asdict(request)}
    try:
        line = json.dumps(values, default=_refuse).encode() + b"\n"
        _parse(line)
    except ValueError as error:
        raise InputError(f"the request to run {run.name} cannot be made: {error}") from None
    require_own(run.path)
    file = durable.Appender(run.path / FILE)
    try:
        file.append(line)
        file.sync()
    finally:
        file.close()
    return request.id


def is_going_on(run: Run) -> bool:
    """True if a process holds the run, and trains it or waits to be told to resume."""
    return run.state in ("running", "paused") and is_locked(run.path)


def who_asks() -> str:
    """This user and machine, as `anna@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in a container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[: _LONGEST["who"]]


class Mailbox:
    """The requests that came since it was opened; `stale` are those of earlier attempts.

    known: ids that the journal has already; a request with one of these is passed over
    """

    def __init__(self, path: Path, known: frozenset[str] = frozenset()) -> None:
        self._path, self._known = path, set(known)
        self._problems: set[str] = set()
        self._is_in_long_line = False
        self._offset, self._seen, self._node = 0, (0, 0, 0), 0
        self.stale: list[Request] = []
        with contextlib.suppress(InputError, OSError), durable.open_plain(path, follow=False) as file:
            self._offset, self._node = file.seek(0, 2), os.fstat(file.fileno()).st_ino
            file.seek(max(self._offset - _MOST_STALE_BYTES, 0))
            for line in file.read(_MOST_STALE_BYTES).splitlines():
                with contextlib.suppress(ValueError, InputError):
                    self.stale.append(_parse(line))
        self._known.update(request.id for request in self.stale)

    def look(self) -> tuple[list[Request], list[str]]:
        """Read what came since the last look; returns requests and problems, each once, twenty in all."""
        requests: list[Request] = []
        problems: list[str] = []
        for line in self._lines(problems):
            try:
                request = _parse(line)
                if request.id in self._known:
                    raise ValueError(f"there was a request {request.id} before")
                self._known.add(request.id)
                requests.append(request)
            except (ValueError, InputError) as error:
                problems.append(str(error)[: _LONGEST["reason"]])
        new = [each for each in dict.fromkeys(problems) if each not in self._problems]
        new = new[: _MOST_PROBLEMS - len(self._problems)]
        self._problems.update(new)
        return requests, new

    def _lines(self, problems: list[str]) -> Iterator[bytes]:
        """Whole lines from the offset on; one that is still being written waits for its end."""
        try:
            status = os.lstat(self._path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            with durable.open_plain(self._path, follow=False) as file:
                self._take_place(os.fstat(file.fileno()), problems)
                file.seek(self._offset)
                while block := file.read(_BLOCK_BYTES):
                    yield from self._split(block, problems)
                    if not block.endswith(b"\n"):
                        file.seek(self._offset)
                        if len(block) < _BLOCK_BYTES:
                            break
            self._seen = seen
        except FileNotFoundError:
            self._offset, self._node, self._is_in_long_line = 0, 0, False
        except MissingError:
            self._offset = 0
        except (InputError, OSError) as error:
            problems.append(str(error))

    def _take_place(self, status: os.stat_result, problems: list[str]) -> None:
        """Hold the file against the one of the last look. Raises: InputError if it is another user's."""
        if status.st_uid != os.geteuid():
            raise InputError(f"{self._path} belongs to another user, so nothing in it counts; remove it")
        is_replaced = self._node not in (0, status.st_ino)
        if is_replaced or status.st_size < self._offset:
            what = "was replaced" if is_replaced else "became shorter"
            problems.append(f"{FILE} {what}; only what comes from now on counts")
            self._offset, self._is_in_long_line = status.st_size, False
        self._node = status.st_ino

    def _split(self, block: bytes, problems: list[str]) -> list[bytes]:
        """The whole lines of a block, which the offset passes, without empty and too long ones."""
        end = block.rfind(b"\n") + 1
        if not end and len(block) >= _LONGEST_LINE:
            self._is_in_long_line, end = True, len(block)
            problems.append(f"a line of {FILE} has over {_LONGEST_LINE:,} bytes")
            self._offset += end
            return []
        self._offset += end
        lines = block[:end].splitlines()
        if self._is_in_long_line and lines:
            lines, self._is_in_long_line = lines[1:], False
        if any(len(line) > _LONGEST_LINE for line in lines):
            problems.append(f"a line of {FILE} has over {_LONGEST_LINE:,} bytes")
        # Two that ask at once may leave an empty line: each ends what looks like the other's torn one.
        return [line for line in lines if 0 < len(line) <= _LONGEST_LINE]


def _refuse(value: object) -> None:
    """Raises: ValueError for what JSON cannot hold."""
    raise ValueError(f"a {type(value).__name__} is no value that a key can have in flight")


def _parse(line: bytes) -> Request:
    """The request of a line. Raises: ValueError, InputError if it is none."""
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it has over {_LONGEST_LINE:,} bytes")
    values = fit(durable.parse_json(line.decode(), Path(FILE)), _REQUEST)
    request = Request(**{each.name: values[each.name] for each in fields(Request) if each.name in values})
    if (request.action in ("set", "back")) != (request.key is not None):
        raise ValueError("set and back need a key, and no other action has one")
    if (request.action == "back") != (request.step is not None):
        raise ValueError("back needs a step, and no other action has one")
    if (request.action in _WITH_TEXT) != bool(request.text.strip()):
        raise ValueError("generate and note need a text, and no other action has one")
    if request.release and request.action != "pause":
        raise ValueError("pause alone may release")
    for name, longest in _LONGEST.items():
        if len(getattr(request, name) or "") > longest:
            raise ValueError(f"its {name} has over {longest:,} characters")
    return request
