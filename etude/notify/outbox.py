"""outbox.jsonl of a run: every message, and what came of it in each channel.

A message is a line as soon as it is made, with `"state": "not sent"`; what comes of it in a channel is a line
of its own, which a later one replaces. So a message of a process that dies stands there as not sent.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import EtudeError
from etude.notify.message import Message
from etude.records.shape import Object, fit, one_of

FILE = "outbox.jsonl"
STATES = ("sent", "not sent", "held", "joined", "refused")  # joined: with others in one message
_MOST_BYTES = 32 << 20  # that are read
_LONGEST_LINE = 1 << 16
_MOST_MESSAGES = 5000
_MESSAGE = Object({"channels": [str]})
_RESULT = Object({"id": str, "channel": str, "state": Annotated[str, one_of(*STATES)]}, {"why": str})


@dataclass
class Entry:
    """A message and its state in each channel that was to send it, with why."""

    message: Message
    states: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_outbox(path: Path) -> dict[str, Entry]:
    """The messages of an outbox by id, oldest first; lines that are none of its own are passed over.

    Raises: InputError if it is no plain file.
    """
    entries: dict[str, Entry] = {}
    for line in _lines(path):
        try:
            values = json.loads(line)
            if isinstance(values, dict) and "text" in values:
                channels = fit(values, _MESSAGE)["channels"]
                states = dict.fromkeys(channels, ("not sent", "it was not tried yet"))
                entry = Entry(Message.of(values), states)
                entries[entry.message.id] = entry
            else:
                result = fit(values, _RESULT)
                state = (result["state"], result.get("why", ""))
                entries[result["id"]].states[result["channel"]] = state
        except (ValueError, KeyError, RecursionError):
            continue
    return entries


class Outbox:
    """The outbox of a run, written to by several threads, and by the guard of the run beside it."""

    def __init__(self, path: Path) -> None:
        """Raises: InputError if it is no plain file of this user; StorageError."""
        self._file = durable.Appender(path)
        self._lock = threading.Lock()
        self.entries = read_outbox(path)
        self._causes = {entry.message.cause for entry in self.entries.values()}

    def add(self, message: Message, channels: list[str]) -> bool:
        """Write a message down; False if the run had one of this cause, or too many.

        Raises: StorageError.
        """
        if message.cause in self._causes or len(self._causes) >= _MOST_MESSAGES:
            return False
        self._causes.add(message.cause)
        self._append({**message.to_dict(), "channels": channels, "state": "not sent"})
        return True

    def note(self, message: Message, channel: str, state: str, why: str = "", tries: int = 0) -> None:
        """Write down what came of a message in a channel; a disk that is full costs the line alone."""
        values = {"id": message.id, "time": round(time.time(), 3), "channel": channel, "state": state}
        with contextlib.suppress(EtudeError, OSError):
            self._append({**values, "why": why, "tries": tries})

    def close(self) -> None:
        """Let go of the file; what comes later is not written."""
        with self._lock:
            self._file.close()

    def _append(self, values: dict[str, Any]) -> None:
        with self._lock:
            self._file.append(json.dumps(values, ensure_ascii=False).encode() + b"\n")


def _lines(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError), durable.open_plain(path, follow=False) as file:
        size = file.seek(0, 2)
        file.seek(max(size - _MOST_BYTES, 0))
        while line := file.readline(_LONGEST_LINE):
            yield line
