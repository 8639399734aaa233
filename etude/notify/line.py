"""LINE by its Messaging API: one message arrives once, and the month's allowance is never passed.

Source: https://developers.line.biz/en/docs/messaging-api/retrying-api-request/ (X-Line-Retry-Key, a UUID: the
request is executed once however often it is made, and after that answered with 409; again after 5xx and
time-outs only), .../reference/messaging-api/ (push, quota, consumption, members of a group; a text has at
most 5,000 characters, in UTF-16 code units), .../handling-http-429-errors/ (429 is the rate or the
allowance). An allowance counts each recipient: a message to a group counts once for each of its members.
"""

import contextlib
import json
import time
from typing import Any

from etude.notify.message import Message
from etude.notify.outcome import Outcome, Room, identify
from etude.notify.request import Reply, UnansweredError, request

API = "https://api.line.me"
_LONGEST = 5000  # UTF-16 code units
_ASK_SECONDS = 600.0
_RATE_PAUSE = 5.0
_ENDPOINTS = {"C": "group", "R": "room"}  # by the first letter of the recipient's id


class Line:
    """The channel of one LINE Official Account to a person, group or room that has it as a friend."""

    def __init__(self, token: str, to: str, *, api: str | None = None, seconds: float = 10.0) -> None:
        self.identity = identify(token)
        self._token, self._to, self._api, self._seconds = token, to, api or API, seconds
        self._room: Room | None = None
        self._asked: float | None = None
        self._people: int | None = 1 if to[:1] not in _ENDPOINTS else None

    def send(self, message: Message, key: str) -> Outcome:
        """Push a message under its retry key; 409 says that an earlier try of it was accepted."""
        body = {"to": self._to, "messages": [{"type": "text", "text": cut(message.full)}]}
        headers = {"Content-Type": "application/json", "X-Line-Retry-Key": key}
        try:
            reply = self._ask("POST", "/v2/bot/message/push", headers, json.dumps(body).encode())
        except UnansweredError as error:
            return Outcome("later", str(error))
        if 200 <= reply.status < 300 or reply.status == 409:
            if self._room is not None and reply.status != 409:
                self._room = Room(self._room.left - (self._people or 1), self._room.most)
            return Outcome("sent")
        if reply.status == 429:
            return self._judge_limit()
        if reply.status >= 500:
            return Outcome("later", f"HTTP {reply.status}")
        why = _reason(reply)
        if reply.status in (401, 403):
            return Outcome("off", f"LINE refused the token{why}")
        return Outcome("refused", f"LINE refused the message{why}")

    def room(self) -> Room | None:
        """The month's allowance in messages to this recipient; asked for every 10 minutes."""
        if self._asked is None or time.monotonic() - self._asked > _ASK_SECONDS:
            self._asked = time.monotonic()
            self._room = self._ask_room()
            if self._people is None:
                where = f"/v2/bot/{_ENDPOINTS[self._to[0]]}/{self._to}/members/count"
                self._people = self._number(where, "count")
        people = self._people or 1
        return self._room and Room(self._room.left // people, self._room.most // people)

    def _judge_limit(self) -> Outcome:
        """Tell a limit of the rate from the end of the allowance; one that cannot be read is the rate's."""
        self._room, self._asked = self._ask_room(), time.monotonic()
        if self._room is not None and self._room.left < (self._people or 1):
            return Outcome("held", f"the month's allowance of {self._room.most:,} messages is used up")
        return Outcome("later", "HTTP 429: too many at once", _RATE_PAUSE)

    def _ask_room(self) -> Room | None:
        most = self._number("/v2/bot/message/quota", "value")
        used = None if most is None else self._number("/v2/bot/message/quota/consumption", "totalUsage")
        return None if most is None or used is None else Room(most - used, most)

    def _number(self, path: str, name: str) -> int | None:
        """A count that an endpoint gives; None where it is not limited or cannot be read."""
        with contextlib.suppress(UnansweredError, ValueError, RecursionError):
            reply = self._ask("GET", path)
            values = json.loads(reply.body) if reply.status == 200 else None
            value = values.get(name) if isinstance(values, dict) else None
            is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
            return value if is_count else None
        return None

    def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        given = {"Authorization": f"Bearer {self._token}", "User-Agent": "etude", **(headers or {})}
        return request(method, self._api + path, headers=given, body=body, seconds=self._seconds)


def cut(text: str) -> str:
    """The text in at most 5,000 UTF-16 code units: the start, and the end with what to do."""
    data = text.encode("utf-16-le", "replace")
    if len(data) <= 2 * _LONGEST:
        return data.decode("utf-16-le")
    mark = "\n...\n"
    end = 2 * (_LONGEST // 4)
    start = 2 * (_LONGEST - len(mark)) - end
    # A pair that a cut takes in two is left out.
    parts = data[:start].decode("utf-16-le", "ignore"), data[-end:].decode("utf-16-le", "ignore")
    return mark.join(parts)


def _reason(reply: Reply) -> str:
    """The status and the message of an error: ` (HTTP 400: ...)`."""
    said: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(reply.body)
        said = values.get("message") if isinstance(values, dict) else None
    return f" (HTTP {reply.status}{f': {said[:100]}' if isinstance(said, str) else ''})"
