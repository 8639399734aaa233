"""A channel as its sender sees it: one try to send a message, and what came of it."""

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

from etude.notify.message import Message
from etude.notify.request import Reply

_LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class Outcome:
    """The end of one try to send a message.

    state         sent; later: another try may send it; held: for want of room, so with others in one message;
                  refused: no try will send it; off: none will send any message
    pause_seconds before another try, where the service says so
    """

    state: Literal["sent", "later", "held", "refused", "off"]
    why: str = ""
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Room:
    """The messages that a service still takes this month, of so many in all."""

    left: int
    most: int


class Channel(Protocol):
    """A way to people. A try may take long, but ends.

    identity  the same for all runs that share a quota
    """

    identity: str

    def send(self, message: Message, key: str) -> Outcome:
        """Try to send a message; with the same key (a UUID) it arrives once, where the service knows keys."""
        ...

    def room(self) -> Room | None:
        """The room that the service still has this month, if it says so; called before each message."""
        ...


def identify(*secrets: str) -> str:
    """A name for the quota of a channel, from which its secrets cannot be told."""
    return hashlib.sha256("\0".join(secrets).encode()).hexdigest()[:16]


def judge(reply: Reply) -> Outcome:
    """The outcome of a request by its status: 429 and 5xx come again, a redirect is refused."""
    status = reply.status
    if 200 <= status < 300:
        return Outcome("sent")
    if status == 429 or status >= 500:
        pause = reply.headers.get("retry-after", "")
        seconds = min(float(pause), _LONGEST_PAUSE) if pause.isdecimal() and len(pause) < 9 else 0.0
        return Outcome("later", f"HTTP {status}", seconds)
    if 300 <= status < 400:
        return Outcome("off", f"HTTP {status}: it leads elsewhere, which is not followed")
    return Outcome("off" if status in (401, 403, 404, 410) else "refused", f"HTTP {status}")
