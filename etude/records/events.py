"""What a journal holds: one frozen dataclass a type, each a line of JSON.

Losses are in nats per target, over all ranks. Times are seconds; `time` is Unix time, durations come from
a monotonic clock.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields
from operator import itemgetter
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import pydantic_core

from etude.records.environment import ENVIRONMENT
from etude.records.shape import Object, at_least, checker, fit

Seconds = Annotated[float, at_least(0, 1e12)]
Positive = Annotated[int, at_least(1)]
_LAST_TIME = 253402300799  # of the year 9999, the last that a date can have
TIME = Annotated[float, at_least(0, _LAST_TIME)]


@dataclass(frozen=True)
class Attempt:
    """A start or restart; records of earlier attempts beyond `from_step` no longer count.

    lower_is_better  of the recipe's metric
    """

    type: ClassVar = "attempt"
    number: int
    from_step: int
    steps: int
    steps_per_epoch: Positive
    device: str
    devices: int
    precision: str
    micro_batch_size: int
    parameters: dict[str, int]
    flops_per_token: float
    matrix_flops_per_second: float
    environment: dict[str, Any]
    flops_per_target: float = 0.0
    trainable: int | None = None
    checkpoint: str | None = None
    changed: list[str] = field(default_factory=list)
    lower_is_better: bool | None = None


@dataclass(frozen=True)
class Step:
    """One optimizer update; `step` counts them from 1. A skipped step changed no weight."""

    type: ClassVar = "step"
    step: int
    epoch: int
    loss: float
    grad_norm: float
    learning_rate: float
    targets: int
    samples: int
    seconds: Seconds
    wait_seconds: Seconds
    skipped: bool = False
    tokens: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The model after `step` on the validation samples; `best` if no earlier one was better.

    At step 0 it is what training starts from, to compare with, and never the best. `metrics` by name, and by
    `name/capability` where the samples are cases of several.
    """

    type: ClassVar = "evaluation"
    step: int
    loss: float
    perplexity: float
    bits_per_byte: float | None
    targets: int
    seconds: Seconds
    best: bool
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What a run came to on rows that it was not trained on, beside what it began with and what costs
    nothing.

    systems: figures of each as [value, low, high] with a bootstrap interval of 95 %, by name
    gains: the same of the run after training less each other system, over the same resamples
    capabilities: main figure of each system on the rows of each capability, and how many rows those are
    distinct: number of different predictions that the run made
    """

    type: ClassVar = "scores"
    step: int
    rows: int
    split: str
    metric: str
    systems: dict[str, dict[str, list[float]]]
    gains: dict[str, list[float]]
    capabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    distinct: int | None = None


@dataclass(frozen=True)
class Generation:
    """A continuation of a fixed prompt, or an answer to an instruction whose right answer is `reference`.

    `stopped` by its own end token; `capability` is what the instruction is a case of.
    """

    type: ClassVar = "generation"
    step: int
    prompt: str
    text: str
    settings: dict[str, Any]
    reference: str | None = None
    stopped: bool | None = None
    capability: str | None = None


@dataclass(frozen=True)
class Resource:
    """Means since the last one; `mfu` is the share of the measured matrix rate."""

    type: ClassVar = "resource"
    step: int
    tokens_per_second: float
    mfu: float
    wait_ratio: float
    cpu_percent: float
    rss_bytes: int
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Finding:
    """A fact that a person should know, with its evidence.

    severity    info, warning or error
    window      the first and the last step that it rests on
    causes      explanations, the likeliest first
    changes     of the recipe that would help: values by key
    not_tested  what it does not rule out
    """

    type: ClassVar = "finding"
    step: int
    what: str
    evidence: str
    advice: str
    severity: str = "warning"
    window: list[int] | None = None
    causes: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    not_tested: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Control:
    """A decision about the run after a step, and its reason.

    request    the id of the request that it answers
    changes    of the recipe: values by key, which hold after `from_step` steps
    """

    type: ClassVar = "control"
    step: int
    action: str
    reason: str
    request: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    from_step: int | None = None


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint whose manifest is on disk."""

    type: ClassVar = "checkpoint"
    step: int
    name: str
    size: int
    blocking_seconds: Seconds
    write_seconds: Seconds


@dataclass(frozen=True)
class DataUsed:
    """What was prepared, in counts."""

    type: ClassVar = "data"
    fingerprint: str
    summary: dict[str, Any]


@dataclass(frozen=True)
class Note:
    """Words of a person, under a heading of the report."""

    type: ClassVar = "note"
    section: str
    text: str
    author: str | None = None


@dataclass(frozen=True)
class Rating:
    """What a person thought of a generation, which `step`, `prompt` and `text` name.

    `score` from 1 to 5; or, beside the run `against` and not knowing which is which, 1 if better, 0.5 if as
    good, 0 if worse.
    """

    type: ClassVar = "rating"
    step: int
    prompt: str
    text: str
    rater: str
    score: float
    against: str | None = None


class _Numbers(NamedTuple):
    """Takes the whole numbers of a line, and its seconds."""

    integers: Callable[[dict[str, Any]], tuple[int, ...]]
    seconds: Callable[[dict[str, Any]], tuple[float, ...]]


class _Flat(NamedTuple):
    """How a line is written of a type whose fields are numbers; `types` of the values as they may come."""

    event: "type[Event]"
    names: tuple[str, ...]
    types: dict[tuple[type, ...], _Numbers]


Event = (
    Attempt
    | Step
    | Evaluation
    | Scores
    | Generation
    | Resource
    | Finding
    | Control
    | CheckpointSaved
    | DataUsed
    | Note
    | Rating
)
TYPES: dict[str, type[Event]] = {event.type: event for event in get_args(Event)}


def to_json(event: Event, time: float) -> dict[str, Any]:
    """Plain values for a journal line; non-finite numbers become "nan", "inf" and "-inf"."""
    return {
        "type": event.type,
        "time": round(time, 3),
        **plain(asdict(event)),
    }


def from_json(record: dict[str, Any]) -> Event | None:
    """The event of a journal line; None for a type this version does not know. Unknown keys are ignored.

    Raises: ValueError if a field is missing, or is not what it should be.
    """
    kind = fit(record.get("type"), str)
    if kind not in TYPES:
        return None
    checks, needed = _FIELDS[kind]
    if lacking := needed - record.keys():
        raise ValueError(f"{kind} without {min(lacking)}")
    event = TYPES[kind](**{name: check(record[name]) for name, check in checks.items() if name in record})
    if kind in _RULES and not _RULES[kind](event):
        raise ValueError(f"{kind} that contradicts itself")
    return event


def from_line(line: bytes) -> tuple[Event, float] | None:
    """Event and time of a journal line as this version writes steps and resources, which are most of them.

    None for every other line, which `from_json` reads, or refuses.
    """
    kind = _FLAT.get(line[: line.find(b",")])
    if kind is None:
        return None
    try:
        record = pydantic_core.from_json(line, cache_strings="keys")
    except ValueError:
        return None
    named = kind.types.get(tuple(map(type, record.values())))
    if named is None or tuple(record) != kind.names:
        return None
    whole, seconds = named.integers(record), named.seconds(record)
    # The sum is NaN if a part is, which min and max may pass over.
    if min(whole) < 0 or max(whole) >= 2**63 or not (min(seconds) >= 0 and sum(seconds) <= _LAST_TIME):
        return None
    moment = record.pop("time")
    del record["type"], record["crc"]
    event = object.__new__(kind.event)
    event.__dict__.update(record)  # as its __init__ would, which takes longer than all the rest
    return event, moment


def plain(value: Any) -> Any:
    """A value as JSON has it: lists for tuples, and "nan", "inf" and "-inf" for numbers that are
    not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _is_consistent(scores: Scores) -> bool:
    """Whether each system has the same figures, the metric among them, each with its interval."""
    figures = [list(values) for values in scores.systems.values()]
    intervals = [
        *scores.gains.values(),
        *(each for values in scores.systems.values() for each in values.values()),
    ]
    return (
        "after" in scores.systems
        and scores.metric in figures[0]
        and all(names == figures[0] for names in figures)
        and all(len(each) == 3 for each in intervals)
        and all({"rows", *scores.systems} == values.keys() for values in scores.capabilities.values())
        and all(math.isfinite(values["rows"]) for values in scores.capabilities.values())
    )


def _is_summary(data: DataUsed) -> bool:
    """Whether the counts can be laid out as tables: objects of plain values, and lists of those."""
    part = Object(optional={"samples": int, "share": (float, None), "examples": list[str]})
    for name, value in data.summary.items():
        entries = value if isinstance(value, list) else [value]
        tables = [entry for entry in entries if isinstance(entry, dict)]
        if (tables and len(tables) < len(entries)) or (name in _USES and value is not None and not tables):
            return False
        for table in tables:
            fit(table, part)
    return True


_USES = ("train", "validation", "test")
_RULES: dict[str, Callable[[Any], bool]] = {
    "attempt": lambda event: (
        "total" in event.parameters and bool(fit(event.environment, ENVIRONMENT) is not None)
    ),
    "scores": _is_consistent,
    "generation": lambda event: bool(
        fit(event.settings, Object(optional={"max_tokens": (int, None)})) is not None
    ),
    "data": _is_summary,
}
_FIELDS = {
    name: (
        {each.name: checker(each.type) for each in fields(kind)},
        {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING},
    )
    for name, kind in TYPES.items()
}


def _flat(kind: type[Event]) -> _Flat:
    hints = {"type": str, "time": Seconds, **{each.name: each.type for each in fields(kind)}, "crc": str}
    choices = [(float,) if hint is Seconds else get_args(hint) or (hint,) for hint in hints.values()]
    seconds = itemgetter("time", *(name for name, hint in hints.items() if hint is Seconds))
    types = {}
    for each in itertools.product(*choices):
        whole = itemgetter("step", *(name for name, found in zip(hints, each) if found is int))
        types[each] = _Numbers(whole, seconds)
    return _Flat(kind, tuple(hints), types)


_FLAT = {b'{"type": "%s"' % kind.type.encode(): _flat(kind) for kind in (Step, Resource)}
