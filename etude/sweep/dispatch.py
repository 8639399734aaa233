"""The decisions of a sweep: from its state and an event to actions, without a clock, a disk or a process."""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from etude.text import rough_duration

MOST_KILLS = 3  # of a stage in a row that saved nothing in between
MOST_LOSSES = 20  # of its machine or of what watched it, likewise: no fault of its own
_MOST_PASSED = 16  # stages that may start before one that is to go first and does not fit yet
_MORE_MEMORY = 1.5  # for a stage that was killed, perhaps for want of it


@dataclass(frozen=True)
class Job:
    """A trial to be made.

    parent        trial that it goes on from; None for one that begins by itself
    seconds       forecast, by which the longest go first within a priority
    memory_bytes  that it needs; 0 where that is not known
    """

    name: str
    parent: str | None = None
    priority: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Device:
    """A device, or a machine without one, that trials share. memory_bytes: None for no limit."""

    name: str
    at_once: int = 1
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Ended:
    """The end of a process of a trial.

    how       finished; stopped, to be gone on with; paused, until it is added again; killed; lost, with what
              it ran on; failed, by an error that would come again
    is_ahead  whether it saved a step since it was started
    seconds   of devices that it has taken in all, where a budget asks for them
    """

    name: str
    how: str
    reason: str = ""
    is_ahead: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Branched:
    """A trial that can go on now, since the one before it has reached the step where they part."""

    name: str


@dataclass(frozen=True)
class Joined:
    """A device that can be used from now on."""

    device: Device


@dataclass(frozen=True)
class Added:
    """More trials, which were decided after the start, or that go on after a pause."""

    jobs: Sequence[Job]


@dataclass(frozen=True)
class Lost:
    """A device that is gone. What ran there ends by events of its own."""

    device: str


@dataclass(frozen=True)
class Start:
    """Start a process for a trial on a device."""

    name: str
    device: str


@dataclass(frozen=True)
class GiveUp:
    """Leave a trial as it is; the others go on."""

    name: str
    reason: str


Event = Ended | Branched | Joined | Lost | Added
Action = Start | GiveUp


@dataclass
class _Place:
    """A device and what is left of it."""

    device: Device
    jobs: set[str] = field(default_factory=set)
    used_bytes: int = 0

    @property
    def is_free(self) -> bool:
        return len(self.jobs) < self.device.at_once

    @property
    def free_bytes(self) -> float:
        limit = self.device.memory_bytes
        return math.inf if limit is None else limit - self.used_bytes


class Dispatcher:
    """Decides what is started where: by priority, then the longest first, within rooms and memory.

    finished   trials that need nothing more
    branched   trials whose first steps are there
    paused     trials that have come as far as they are to go for now
    running    trials that run already, and the device of each
    budget     seconds of devices that all may take; None for no limit
    spent      of them so far, by trial
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        finished: Collection[str] = (),
        branched: Collection[str] = (),
        paused: Collection[str] = (),
        running: Mapping[str, str] | None = None,
        budget: float | None = None,
        spent: Mapping[str, float] | None = None,
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._order: dict[str, int] = {}
        self._children: dict[str, list[str]] = {}
        self.finished, self.given_up, self.paused = set(finished), set[str](), set(paused)
        self._branched = set(branched)
        self.running = dict(running or {})
        self._needs: dict[str, int] = {}
        self._spent = dict(spent or {})
        self._left = None if budget is None else budget - sum(self._spent.values())
        self.beyond = dict[str, str]()  # trials that the budget leaves out, and why
        self._most = {"killed": MOST_KILLS, "lost": MOST_LOSSES}
        self._ends: dict[str, Counter[str]] = {}  # how a trial has ended without progress
        self._passed: dict[str, int] = {}
        self._places: dict[str, _Place] = {}
        self._rooms: list[tuple[float, str]] = []  # a heap of free memory and devices, with old entries
        self._changed: dict[str, None] = {}  # devices that an event freed
        self._is_new = False  # whether there are trials that can start since the last decision
        # A heap of trials that can start for each size of memory: the first that fits is found at once.
        self._ready: dict[int, list[tuple[int, float, int, str]]] = {}
        self._add(jobs)

    @property
    def is_over(self) -> bool:
        """True if every trial is finished, given up or paused."""
        return sum(map(len, (self.finished, self.given_up, self.beyond, self.paused))) >= len(self._jobs)

    @property
    def places(self) -> int:
        """The number of trials that all devices take at once."""
        return sum(place.device.at_once for place in self._places.values())

    def refuse(self, devices: Sequence[Device], names: Sequence[str] | None = None) -> list[GiveUp]:
        """Give up trials, by default any, that fit on none of the devices to come, before they start."""
        limits = [device.memory_bytes for device in devices]
        most = max(filter(None, limits), default=0)
        if not limits or None in limits:
            return []
        found = [name for name, need in self._needs.items() if need > most and name not in self.finished]
        found = [name for name in found if names is None or name in names]
        return [each for name in found for each in self._give_up(name, too_large(self._needs[name], most))]

    def decide(self, event: Event) -> list[Action]:
        """The actions that follow from an event."""
        actions: list[Action] = []
        match event:
            case Joined(device):
                self._join(device)
            case Lost(name):
                del self._places[name]
            case Added(jobs):
                self.paused.difference_update(job.name for job in jobs)
                self._add(jobs)
                devices = [place.device for place in self._places.values()]
                actions += self.refuse(devices, [job.name for job in jobs])
            case Branched(name):
                self._branched.add(name)
                self._wake(name)
            case Ended(name):
                self._leave(name)
                self._charge(name, event.seconds)
                actions += self._end(event)
        return [*actions, *self._fill()]

    def _add(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._jobs[job.name] = job
            self._order.setdefault(job.name, len(self._order))
            if job.parent is not None:
                self._children.setdefault(job.parent, []).append(job.name)
            if job.memory_bytes:
                self._needs.setdefault(job.name, job.memory_bytes)
        for job in jobs:
            if self._can_start(job):
                self._queue(job.name)

    def _end(self, event: Ended) -> list[GiveUp]:
        name = event.name
        if event.how == "finished":
            self.finished.add(name)
            self._wake_children(name)
            return []
        if event.how == "paused":
            self.paused.add(name)
            return []
        if event.how == "failed":
            return self._give_up(name, event.reason)
        if event.how in self._most:
            ends, most = self._ends.setdefault(name, Counter()), self._most[event.how]
            if event.is_ahead:
                ends.clear()
            ends[event.how] += 1
            if ends[event.how] >= most:
                return self._give_up(name, f"{event.reason or event.how}, {most} times without progress")
            if event.how == "killed" and name in self._needs:
                self._needs[name] = min(round(_MORE_MEMORY * self._needs[name]), self._most_memory(name))
        self._queue(name)
        return []

    def _give_up(self, name: str, reason: str) -> list[GiveUp]:
        if name in self.given_up:
            return []
        self.given_up.add(name)
        self._wake_children(name)
        return [GiveUp(name, reason)]

    def _wake_children(self, name: str) -> None:
        """Let the trials that wait for one, which will not come to them any more, begin by themselves."""
        for child in self._children.get(name, ()):
            self._wake(child)

    def _wake(self, name: str) -> None:
        if name not in self.running and self._can_start(self._jobs[name]):
            self._queue(name)

    def _can_start(self, job: Job) -> bool:
        ended = (self.finished, self.given_up, self.running, self.beyond, self.paused)
        if any(job.name in each for each in ended):
            return False
        is_left = job.parent in self.finished or job.parent in self.given_up
        return job.parent is None or is_left or job.name in self._branched

    def _join(self, device: Device) -> None:
        place = self._places[device.name] = _Place(device)
        for name, where in self.running.items():
            if where == device.name:
                place.jobs.add(name)
                place.used_bytes += self._need(name, device)
        self._changed[device.name] = None

    def _leave(self, name: str) -> None:
        """Take a trial off its device."""
        place = self._places.get(self.running.pop(name, ""))
        if place is not None:
            place.jobs.discard(name)
            place.used_bytes = sum(self._need(job, place.device) for job in place.jobs)
            self._changed[place.device.name] = None

    def _queue(self, name: str) -> None:
        job = self._jobs[name]
        key = (-job.priority, -job.seconds, self._order[name], name)
        heapq.heappush(self._ready.setdefault(self._needs.get(name, 0), []), key)
        self._is_new = True

    def _fill(self) -> Iterator[Start]:
        """Start what can be started: on the devices that the event changed, then where most memory is free.

        All other devices were filled after an earlier event.
        """
        changed, self._changed = list(self._changed), {}
        for name in changed:
            if name in self._places:
                yield from self._fill_place(self._places[name])
        is_new, self._is_new = self._is_new, False
        while is_new and (place := self._roomiest()) is not None:
            started = list(self._fill_place(place))
            yield from started
            if not started:
                return

    def _fill_place(self, place: _Place) -> Iterator[Start]:
        while place.is_free and (name := self._next(place)) is not None:
            place.jobs.add(name)
            place.used_bytes += self._need(name, place.device)
            self.running[name] = place.device.name
            yield Start(name, place.device.name)
        if place.is_free:
            heapq.heappush(self._rooms, (-place.free_bytes, place.device.name))

    def _roomiest(self) -> _Place | None:
        """The device with a free place that has most memory left; what is no longer so is dropped."""
        while self._rooms:
            free_bytes, name = self._rooms[0]
            place = self._places.get(name)
            if place is not None and place.is_free and -place.free_bytes == free_bytes:
                return place
            heapq.heappop(self._rooms)
        return None

    def _next(self, place: _Place) -> str | None:
        """Take the trial that a device starts next from those that can start."""
        if not self._leave_out():
            return None
        heads = sorted((heap[0], size) for size, heap in self._ready.items() if self._head(heap))
        for (*_, name), size in heads:
            if self._fits(name, place):
                heapq.heappop(self._ready[size])
                return name
            if place.jobs and self._need(name, place.device) <= (place.device.memory_bytes or 0):
                self._passed[name] = self._passed.get(name, 0) + 1
                if self._passed[name] > _MOST_PASSED:
                    return None  # the device is left to empty for it
        return None

    def _leave_out(self) -> bool:
        """Leave out the first trials that the rest of the budget does not pay for.

        False if the first of all may be paid for when what runs has ended: no later one goes before it.
        """
        while self._left is not None:
            heads = [(heap[0], size) for size, heap in self._ready.items() if self._head(heap)]
            if not heads:
                return True
            (*_, name), size = min(heads)
            left, cost = self._left, self._cost(name)
            if cost <= left - sum(map(self._cost, self.running)) and left > 0:
                return True
            if cost <= left and self.running:
                return False
            heapq.heappop(self._ready[size])
            self._put_beyond(name, f"about {rough_duration(cost)}, {rough_duration(max(left, 0.0))} are left")
        return True

    def _put_beyond(self, name: str, reason: str) -> None:
        """Leave out a trial, and those that wait for its steps."""
        self.beyond[name] = f"not started: budget ({reason})"
        for child in self._children.get(name, ()):
            done = (self.finished, self.given_up, self.running, self.beyond, self._branched)
            if not any(child in each for each in done):
                self._put_beyond(child, f"it goes on from {name}")

    def _charge(self, name: str, seconds: float) -> None:
        """Take note of what a trial has taken in all."""
        before = self._spent.get(name, 0.0)
        self._spent[name] = max(seconds, before)
        if self._left is not None:
            self._left -= self._spent[name] - before

    def _cost(self, name: str) -> float:
        """Forecast seconds of what is left of a trial."""
        return max(self._jobs[name].seconds - self._spent.get(name, 0.0), 0.0)

    def _head(self, heap: list[tuple[int, float, int, str]]) -> bool:
        """True if a heap has a trial that can still start, first; others are taken off."""
        while heap and (heap[0][-1] in self.running or not self._can_start(self._jobs[heap[0][-1]])):
            heapq.heappop(heap)
        return bool(heap)

    def _fits(self, name: str, place: _Place) -> bool:
        return self._need(name, place.device) <= place.free_bytes

    def _need(self, name: str, device: Device) -> int:
        """Bytes that a trial takes of a device: its share where that is not known."""
        return self._needs.get(name) or (device.memory_bytes or 0) // device.at_once

    def _most_memory(self, name: str) -> int:
        limits = (place.device.memory_bytes for place in self._places.values())
        return max(filter(None, limits), default=self._needs[name])


def too_large(need: int, most: int) -> str:
    """The problem of a trial that needs more bytes than any device has."""
    return f"it needs {need / 1e9:.1f} GB, and no device gives more than {most / 1e9:.1f} GB"
