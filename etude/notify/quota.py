"""The quota of a channel, shared by all runs of this user; its last messages are kept for what matters."""

import os
import time
from collections import deque
from datetime import UTC, datetime, timedelta

from etude import durable
from etude.errors import EtudeError, MissingError
from etude.notify.outcome import Room
from etude.records.shape import fit

_MOST_AN_HOUR = 12  # of what matters less than the end of a run; of ends, four times as many
_KEPT_DAYS = 62
_SHORT = 20  # messages kept for what matters more, or a fifth of a small quota


class Quota:
    """The quota of one channel.

    What matters less leaves the last messages of a quota to what matters more: of 200 a month, the last 20 to
    ends of runs and the last 5 to faults. Messages are counted before they are sent, so that no quota is
    passed however a process ends.
    """

    def __init__(self, identity: str, per_day: int | None = None, per_month: int | None = None) -> None:
        self._identity, self._per_day, self._per_month = identity, per_day, per_month
        self._times: deque[float] = deque()

    def take(self, rank: int, room: Room | None) -> str | None:
        """Count one message of a rank (0 matters most); returns why it may not be sent, or None.

        room: what the service still takes.
        """
        now = time.monotonic()
        while self._times and now - self._times[0] > 3600:
            self._times.popleft()
        most = _MOST_AN_HOUR * (1 if rank > 1 else 4)
        if len(self._times) >= most:
            return f"{most} messages were sent within the hour"
        if room is not None and (why := _shortage(rank, room, "the month's allowance")):
            return why
        if (self._per_day or self._per_month) and (why := self._count(rank)):
            return why
        self._times.append(now)
        return None

    def _count(self, rank: int) -> str | None:
        try:
            folder = durable.cache_folder("notify")
            durable.make_folder(folder)
            lock = durable.open_lock(folder / f"{self._identity}.lock")
            try:
                durable.lock(lock, folder, wait=True)
                return self._count_alone(rank)
            finally:
                os.close(lock)
        except (EtudeError, OSError) as error:
            return f"the messages sent so far cannot be counted ({type(error).__name__})"

    def _count_alone(self, rank: int) -> str | None:
        path = durable.cache_folder("notify") / f"{self._identity}.json"
        day = datetime.now(UTC).date()
        try:
            counts: dict[str, int] = fit(durable.read_json_object(path, follow=False), dict[str, int])
        except MissingError:
            counts = {}
        except ValueError:
            return f"{path} is damaged, so the messages sent so far are not known; remove it"
        month = sum(count for name, count in counts.items() if name[:7] == day.isoformat()[:7])
        for most, sent, what in (
            (self._per_day, counts.get(day.isoformat(), 0), "per_day"),
            (self._per_month, month, "per_month"),
        ):
            if most is not None and (why := _shortage(rank, Room(most - sent, most), what)):
                return why
        oldest = (day - timedelta(_KEPT_DAYS)).isoformat()
        kept = {name: count for name, count in counts.items() if name >= oldest}
        durable.write_json(path, {**kept, day.isoformat(): kept.get(day.isoformat(), 0) + 1})
        return None


def _shortage(rank: int, room: Room, what: str) -> str | None:
    """Why a message of a rank has to leave what is left to others, or None."""
    short = min(_SHORT, room.most // 5)
    kept = 0 if rank == 0 else short // 4 if rank == 1 else short
    if room.left > kept:
        return None
    rest = f"the last {kept:,} are kept for what matters more" if room.left > 0 else "it is used up"
    return f"{what} ({room.most:,}): {rest}"
