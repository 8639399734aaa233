"""Requests in plain values, and the answers to them: JSON, a download, or a problem in one line."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from etude import durable
from etude.errors import EtudeError, InputError, MissingError
from etude.text import shorten

_DIGITS = 15  # of a step
Told = Callable[[Exception], None]


class StateError(InputError):
    """A request that does not fit the state of its run."""


@dataclass(frozen=True)
class Asked:
    """A request in plain values: parts of its path, its query and the object in its body."""

    part: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)

    def names(self, key: str, most: int) -> list[str]:
        """A list that is parted by commas. Raises: InputError if it is too long."""
        found = [name for name in self.query.get(key, "").split(",") if name]
        if len(found) > most:
            raise InputError(f"{key} has {len(found):,} names; ask for up to {most}")
        return found

    def steps(self, key: str, most: int) -> list[int]:
        """A list of steps. Raises: InputError if it is too long, or holds anything else."""
        found = self.names(key, most)
        if any(not (each.isascii() and each.isdecimal() and len(each) <= _DIGITS) for each in found):
            raise InputError(f"{key} is {shorten(','.join(found), 40)!r}; give steps")
        return [int(each) for each in found]

    def text(self, key: str) -> str:
        """A text of the body. Raises: InputError if it is none."""
        value = self.body.get(key)
        if not isinstance(value, str):
            raise InputError(f"the body has no text {key}")
        return value

    def changes(self) -> dict[str, Any]:
        """Changes of a recipe by dotted key. Raises: InputError if they are no object."""
        value = self.body.get("changes") or {}
        if not isinstance(value, dict):
            raise InputError("changes is no object; give values by dotted key")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        """A number of the query; None where it has none. Raises: InputError if it is none."""
        text = self.query.get(key, "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise InputError(f"{key} is {shorten(text, 40)!r}; give a number from {least:g} to {most:g}")
        return value

    def count(self, key: str, default: int, most: int) -> int:
        """A whole number of the query from 1 on, or what stands for it. Raises: InputError if it is none."""
        found = self.number(key, 1, most)
        return default if found is None else int(found)


@dataclass(frozen=True)
class Download:
    """A body that is no JSON: bytes, or an iterator of them, with type and the name to save it under."""

    content: bytes | str | Iterator[bytes]
    kind: str
    name: str | None = None
    policy: str | None = None


Handler = Callable[[Asked], Any]


async def answer(
    handler: Handler, limiter: Callable[[], anyio.CapacityLimiter], told: Told, request: Request
) -> Response:
    """The answer of a handler, which runs in a thread; a fault of etude is told, and is one line."""
    try:
        body = _parse(await request.body()) if request.method == "POST" else {}
        asked = Asked(dict(request.path_params), dict(request.query_params), body)
        is_read = request.method != "POST"  # what only reads is left behind where the server ends
        found = await anyio.to_thread.run_sync(handler, asked, limiter=limiter(), abandon_on_cancel=is_read)
        if isinstance(found, Download):
            return _download(found)
        content = await anyio.to_thread.run_sync(_encode, found, limiter=limiter())
        return Response(content, media_type="application/json")
    except Exception as error:
        return failure(error, told)


def failure(error: Exception, told: Told) -> Response:
    """An error as an answer; one that is a fault of etude is told, and only its kind is in the answer."""
    if isinstance(error, EtudeError | OSError):
        kinds = [(MissingError, 404), (StateError, 409), (InputError, 400)]
        status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
        return problem(status, shorten(error))
    told(error)
    return problem(500, f"etude failed: {type(error).__name__}")


def problem(status: int, text: str) -> Response:
    """An error as the page takes it: one line."""
    return Response(json.dumps({"error": text}).encode(), status, media_type="application/json")


def _parse(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises: InputError."""
    try:
        value = durable.parse_json(body.decode(), Path("the body"))
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8") from None
    if not isinstance(value, dict):
        raise InputError("the body holds no JSON object")
    return value


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # a number that is not finite
        from etude.records.events import plain

        return json.dumps(plain(value), allow_nan=False, separators=(",", ":")).encode()


def _download(found: Download) -> Response:
    headers = {"content-security-policy": found.policy} if found.policy else {}
    if found.name:
        stem, _, end = found.name.rpartition(".")
        safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem)
        headers["content-disposition"] = f'attachment; filename="{safe}.{end}"'
    if isinstance(found.content, bytes | str):
        return Response(found.content, headers=headers, media_type=found.kind)
    content: AsyncIterator[bytes] = iterate_in_threadpool(found.content)
    return StreamingResponse(content, headers=headers, media_type=found.kind)
