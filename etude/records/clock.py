"""Times of records that no clock can spoil: written evenly, and read without the jumps that a journal has."""

import operator
import time
from collections.abc import Sequence

from etude.records.events import Attempt, Control, Event, Note, Rating
from etude.records.ledger import Entry, Jump

_LONGEST_SILENCE = 86_400.0  # s between two records of an attempt, beside the time that they tell themselves
_SLACK = 1.0  # s by which a record of another process may come before the last one


class EvenClock:
    """Unix time that goes on evenly from when it was made, whatever the clock of the machine is set to."""

    def __init__(self) -> None:
        self._zero = time.time() - _elapsed()

    def now(self) -> float:
        """Seconds since 1970, by the clock as it was at the beginning."""
        return self._zero + _elapsed()


class EvenTimes:
    """Takes the jumps of a clock out of records as they are read; `jumps` has those that were found.

    A record that is before the last one, or a day later than the last one and its own time, is held to have
    come when its own time was over: that of a step or an evaluation. What people say may come at any time,
    and a paused run may wait for days.
    """

    def __init__(self) -> None:
        self.jumps: list[Jump] = []
        self._last = self._offset = self._jumped_at = 0.0
        self._is_paused = False

    def take(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The records with even times, in the order in which they were written."""
        times = [self._last, *(entry.time for entry in entries)]
        is_even = all(map(operator.le, times, times[1:])) and times[-1] - times[0] < _LONGEST_SILENCE
        is_plain = not any(isinstance(entry.event, Attempt | Control) for entry in entries)
        if is_even and is_plain and not self._offset:
            self._last = times[-1]
            return entries
        return [self._take(entry) for entry in entries]

    def _take(self, entry: Entry) -> Entry:
        event, moment = entry.event, entry.time
        if isinstance(event, Note | Rating) or (isinstance(event, Control) and event.channel == "fork"):
            return entry
        if isinstance(event, Attempt) or not self._last:
            self._last, self._offset, self._jumped_at, self._is_paused = moment, 0.0, 0.0, False
            return entry
        gap, own = moment - self._last, _own_seconds(event)
        most = float("inf") if self._is_paused else _LONGEST_SILENCE + own
        if not -_SLACK <= gap <= most:
            self.jumps.append(Jump(entry.attempt, gap - own))
            self._offset += gap - own
            self._jumped_at = moment
        elif moment == self._jumped_at and not gap:  # of the same write: each took its own time before it
            self._offset -= own
        self._last = moment
        if isinstance(event, Control) and event.action in ("pause", "resume"):
            self._is_paused = event.action == "pause"
        return entry._replace(time=moment - self._offset) if self._offset else entry


def _own_seconds(event: Event) -> float:
    """The seconds that a record tells of itself, by a clock that is never set."""
    return float(getattr(event, "seconds", 0.0))


def _elapsed() -> float:
    """Seconds since the machine was started, also those in which it slept, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
