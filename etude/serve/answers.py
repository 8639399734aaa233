"""Parts that all endpoints share: errors in the form of OpenAI's, and clients that go before their answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from etude.errors import InputError
from etude.serve.asked import Asked
from etude.serve.engine import BusyError
from etude.serve.opened import Opened
from etude.serve.reply import AnswerError
from etude.text import shorten
from etude.ui.gate import Refusal, error_of

Value = TypeVar("Value")


class GoneError(Exception):
    """The client has gone before its answer."""


def with_errors(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint with its errors in the form of OpenAI's."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except GoneError:
            return Response(status_code=499)  # nobody reads it
        except (Refusal, AnswerError) as refusal:
            return problem(refusal.status, refusal.text)
        except BusyError as error:
            return problem(429, str(error), {"retry-after": "1"})
        except InputError as error:
            return problem(400, shorten(" ".join(str(error).split()), 400))

    return told


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as an answer."""
    return JSONResponse({"error": error_of(status, text)}, status, headers)


def require_model(asked: Asked, opened: Opened) -> None:
    """Raises: Refusal if a request is for another model."""
    if asked.model not in (None, opened.name):
        text = f"there is no model {shorten(repr(asked.model), 60)}; this server has {opened.name}"
        raise Refusal(404, text)


async def unless_gone(work: Awaitable[Value], request: Request) -> Value:
    """The outcome of some work, which ends with the connection. Raises: GoneError."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working: asyncio.Future[Any] = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(leave())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        return working.result()  # type: ignore[no-any-return]
    finally:
        for task in (working, leaving):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
