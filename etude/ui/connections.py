"""One connection of a client, with limits of time and number that uvicorn does not have.

A client that is slow, or holds many connections, costs a place that the next one takes.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
HEADER_SECONDS = 10.0
WRITE_SECONDS = 30.0  # in which a client has to take what is sent, or it is dropped
_FULL = b"This server has as many connections as it takes; close one and try again.\n"
_FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"retry-after: 2\r\ncontent-length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


class Connection(H11Protocol):
    """A connection that ends if its request does not come, or its answer is not taken, in time."""

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    since = 0.0

    @property
    def most(self) -> int:
        """Connections at once."""
        return MOST_CONNECTIONS

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > self.most and not self._make_room():
            transport.write(_FULL_ANSWER)
            transport.close()
            return
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._deadline and not self.is_idle:
            self._deadline.cancel()
            self._deadline = None
        elif not self._deadline and self.is_idle:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._deadline, self._write_deadline):
            if deadline:
                deadline.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self._write_deadline or self.loop.call_later(
            WRITE_SECONDS, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline:
            self._write_deadline.cancel()
            self._write_deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline:  # the next request has one of its own
            self._deadline.cancel()
            self._deadline = None

    @property
    def is_idle(self) -> bool:
        """True while no request is being answered: none has come whole, or all are answered."""
        return self.cycle is None or self.cycle.response_complete

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _make_room(self) -> bool:
        """End the connection that has been idle for longest; False if all are being answered."""
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        idle = [each for each in others if each.is_idle and not each.transport.is_closing()]
        if not idle:
            return False
        min(idle, key=lambda each: each.since).transport.abort()
        return True
