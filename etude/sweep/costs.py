"""Device time of a sweep: each second is charged once, and split among the trials that use its steps."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from etude.errors import InputError
from etude.records.events import Attempt, Note, Rating, Step
from etude.records.store import Run
from etude.report.history import History, read_history


@dataclass(frozen=True)
class Part:
    """Steps that one run made, and the trials that use them.

    first, last  steps; the last part of a run has no last one, and holds its final scores too
    seconds      of devices: time times their number
    """

    run: str
    first: int
    last: int | None
    seconds: float
    trials: tuple[str, ...]


@dataclass(frozen=True)
class Costs:
    """Device seconds of the trials of a sweep.

    measured  of all runs, from the first record of each attempt to its last
    charged   share of each trial; they add up to `measured`
    alone     the seconds of each trial had it shared nothing
    unknown   trials that go on from a run that is not among these: what that made is not known here
    """

    measured: float
    parts: tuple[Part, ...]
    charged: Mapping[str, float]
    alone: Mapping[str, float]
    unknown: tuple[str, ...] = ()


@dataclass
class _Made:
    """The device seconds that a run made itself, by step, and who uses it up to which step."""

    run: str
    times: list[tuple[int, float]]
    users: list[tuple[float, str]] = field(default_factory=list)


def split_costs(histories: Mapping[str, History]) -> Costs:
    """Split the time of runs, by the name of their trial, among the trials.

    A run that goes on from another begins with a copy of its records: these are charged where they were
    made. Trials that use the same steps pay equal parts of them.
    """
    by_id = {history.run.info["id"]: name for name, history in histories.items()}
    made = {name: _Made(history.run.name, made_times(history)) for name, history in histories.items()}
    unknown = []
    for name in histories:
        until, owner, seen = math.inf, name, set[str]()
        while owner not in seen:
            seen.add(owner)
            made[owner].users.append((until, name))
            origin = histories[owner].run.info.get("origin")
            if origin is None:
                break
            until = min(until, origin["step"])
            if origin["run"] not in by_id:
                unknown.append(name)
                break
            owner = by_id[origin["run"]]
    parts = [part for each in made.values() for part in _parts(each)]
    return Costs(
        measured=math.fsum(seconds for each in made.values() for _, seconds in each.times),
        parts=tuple(parts),
        charged={
            name: math.fsum(part.seconds / len(part.trials) for part in parts if name in part.trials)
            for name in histories
        },
        alone={name: math.fsum(part.seconds for part in parts if name in part.trials) for name in histories},
        unknown=tuple(unknown),
    )


def spent_seconds(run: Run) -> float:
    """Device seconds that a run has spent itself; none of one that cannot be read."""
    try:
        return math.fsum(seconds for _, seconds in made_times(read_history(run)))
    except InputError:
        return 0.0


def made_times(history: History) -> list[tuple[int, float]]:
    """Device seconds that a run spent itself, each with the step that it belongs to, in the order of steps.

    The time before a step is its own, that after the last step of an attempt belongs to that step, as
    evaluations do; steps that a restart made again count each time.
    """
    origin = history.run.info.get("origin")
    own = {
        attempt.number: attempt
        for attempt in history.attempts
        if origin is None or attempt.from_step >= origin["step"]
    }
    entries = sorted(
        (each for each in history.ledger.all if each.attempt in own and not _is_of_people(each.event)),
        key=lambda each: (each.attempt, each.time, not isinstance(each.event, Attempt)),
    )
    times: list[tuple[int, float]] = []
    number, before, step = 0, 0.0, 0
    for event, time, attempt in entries:
        if attempt != number:
            number, before, step = attempt, time, own[attempt].from_step + 1
        if isinstance(event, Step):
            step = event.step
        if time > before:
            times.append((step, (time - before) * own[attempt].devices))
            before = time
    return sorted(times, key=lambda each: each[0])


def _is_of_people(event: object) -> bool:
    """True for what people say, which may come days later."""
    return isinstance(event, Note | Rating)


def _parts(made: _Made) -> Sequence[Part]:
    """The time of a run, cut where a trial stops using it."""
    ends = sorted({until for until, _ in made.users})
    sums: list[list[float]] = [[] for _ in ends]
    for step, seconds in made.times:
        sums[bisect_left(ends, step)].append(seconds)
    parts, first = [], made.times[0][0] if made.times else 1
    for end, seconds_of in zip(ends, sums):
        last = None if end == math.inf else int(end)
        users = tuple(name for until, name in made.users if until >= end)
        if seconds_of:
            parts.append(Part(made.run, first, last, math.fsum(seconds_of), users))
            first = last + 1 if last is not None else first
    return parts
