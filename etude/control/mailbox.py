"""Requests to a run that is going on: lines of control.jsonl, each done when the journal answers it."""

import json
import secrets
import time
from collections import deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.records.folder import require_own
from etude.records.shape import Object, fit, matching, one_of
from etude.records.store import Run

FILE = "control.jsonl"
ACTIONS = ("stop", "pause", "go on", "set", "back")
_LOOK_BYTES = 1 << 16
_LONGEST_REASON = 200
_MOST_PROBLEMS = 20
_REQUEST = Object(
    {"id": Annotated[str, matching("[a-z0-9-]{1,40}")], "action": Annotated[str, one_of(*ACTIONS)]},
    {"key": (str, None), "value": (float, str, None), "reason": str, "step": (int, None)},
)


@dataclass(frozen=True)
class Request:
    """One request by its id.

    `set` gives a key of the recipe another value, `back` does so from the checkpoint of an earlier step on.
    """

    id: str
    action: str
    key: str | None = None
    value: Any = None
    reason: str = ""
    step: int | None = None


def post(
    run: Run,
    action: str,
    *,
    key: str | None = None,
    value: Any = None,
    reason: str = "",
    step: int | None = None,
) -> str:
    """Ask a run that is going on for an action; returns the id by which the journal answers.

    Raises: InputError if the run is not going on, or nobody could read the request; StorageError.
    """
    if run.state not in ("running", "paused"):
        raise InputError(f"run {run.name} is {run.state}; only a run that is going on takes requests")
    request = Request(secrets.token_hex(6), action, key, value, reason, step)
    line = json.dumps({"time": round(time.time(), 3), **asdict(request)}).encode() + b"\n"
    try:
        _parse(line)
    except ValueError as error:
        raise InputError(f"the request to run {run.name} cannot be made: {error}") from None
    require_own(run.path)
    file = durable.Appender(run.path / FILE)
    file.append(line)
    file.sync()
    file.close()
    return request.id


class Mailbox:
    """The requests that came since it was opened; older ones were for an earlier attempt, and are void."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[Request] = deque()
        self._known: set[str] = set()
        self._problems: set[str] = set()
        try:
            with durable.open_plain(path, follow=False) as file:
                self._offset = file.seek(0, 2)
        except InputError:
            self._offset = 0

    def next(self) -> Request | None:
        """The request that waits longest, or None."""
        return self._waiting.popleft() if self._waiting else None

    def look(self) -> list[str]:
        """Read what came since the last look; returns problems, each once and twenty in all."""
        problems: list[str] = []
        for line in self._lines(problems):
            try:
                request = _parse(line)
                if request.id in self._known:
                    raise ValueError(f"there was a request {request.id} before")
                self._known.add(request.id)
                self._waiting.append(request)
            except (ValueError, InputError) as error:
                problems.append(str(error)[:_LONGEST_REASON])
        new = [each for each in dict.fromkeys(problems) if each not in self._problems]
        new = new[: _MOST_PROBLEMS - len(self._problems)]
        self._problems.update(new)
        return new

    def _lines(self, problems: list[str]) -> list[bytes]:
        """Whole lines from the offset on; one that is still being written waits for its end."""
        try:
            with durable.open_plain(self._path, follow=False) as file:
                if (size := file.seek(0, 2)) < self._offset:
                    problems.append(f"{FILE} became shorter; only what comes from now on counts")
                    self._offset = size
                file.seek(self._offset)
                chunk = file.read(_LOOK_BYTES)
        except MissingError:
            self._offset = 0
            return []
        except (InputError, OSError) as error:
            problems.append(str(error))
            return []
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) == _LOOK_BYTES:
            problems.append(f"a line of {FILE} has over {_LOOK_BYTES:,} bytes")
            self._offset += len(chunk)
            return []
        self._offset += end
        return chunk[:end].splitlines()


def _parse(line: bytes) -> Request:
    """The request of a line. Raises: ValueError, InputError if it is none."""
    values = fit(durable.parse_json(line.decode(), Path(FILE)), _REQUEST)
    request = Request(**{each.name: values[each.name] for each in fields(Request) if each.name in values})
    if (request.action in ("set", "back")) != (request.key is not None):
        raise ValueError("set and back need a key, and no other action has one")
    if (request.action == "back") != (request.step is not None):
        raise ValueError("back needs a step, and no other action has one")
    if len(request.reason) > _LONGEST_REASON or len(request.key or "") > _LONGEST_REASON:
        raise ValueError(f"its reason or key has over {_LONGEST_REASON} characters")
    return request
