"""Work for a request ends with its connection; errors keep the form of OpenAI's."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from etude.errors import InputError
from etude.serve.answers import GoneError, unless_gone, with_errors
from etude.serve.engine import BusyError
from etude.ui.gate import Refusal


def request(*messages: dict[str, Any]) -> Request:
    """A request whose connection says these messages, and then nothing."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(3600)
        return left.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [], "path": "/"}, receive)


def test_work_ends_where_the_client_goes_first() -> None:
    ended: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "done"

    with pytest.raises(GoneError):
        asyncio.run(unless_gone(work(), request({"type": "http.disconnect"})))
    assert ended == ["cancelled"]


def test_the_outcome_and_the_error_of_work_are_passed_on() -> None:
    async def work(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    assert asyncio.run(unless_gone(work(3), request())) == 3
    with pytest.raises(InputError, match="wrong"):
        asyncio.run(unless_gone(work(InputError("wrong")), request()))


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InputError("two\nlines"), 400, "invalid_request_error"),
        (BusyError("many wait"), 429, "rate_limit_error"),
        (Refusal(404, "no such model"), 404, "invalid_request_error"),
    ],
)
def test_errors_are_one_line_of_json(error: Exception, status: int, kind: str) -> None:
    async def fail(request: Request) -> Response:
        raise error

    answer = asyncio.run(with_errors(fail)(request()))
    told = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, told["type"]) == (status, kind) and "\n" not in told["message"]
