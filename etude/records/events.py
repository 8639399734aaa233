"""The records of a journal: one type of event each, one line of JSON.

Losses are in nats per target, over all ranks. Times are seconds; `time` is Unix time, others are monotonic.
"""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import Annotated, Any, NamedTuple

from etude.records.environment import ENVIRONMENT
from etude.records.execution import Execution as Execution
from etude.records.people import Note as Note
from etude.records.people import Rating as Rating
from etude.records.shape import Object, at_least, checker, fit

LONGEST_SECONDS = 1e12
LAST_TIME = 253402300799  # of the year 9999, the last that a date can have
Number = Annotated[float, float]  # a whole number becomes a float
Seconds = Annotated[float, at_least(0, LONGEST_SECONDS), float]
Positive = Annotated[int, at_least(1)]
TIME = Annotated[float, at_least(0, LAST_TIME), float]
RARE = (  # no key of a line where they are None
    "loss_scale", "computed_tokens", "mapped_bytes", "slowest_rank", "slowest_seconds", "median_seconds",
    "journal")  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """A start or restart; records of earlier attempts beyond `from_step` no longer count.

    lower_is_better  of the recipe's metric; prefixes: whether equal ones are computed once; if not, why
    """

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
    prefixes: str = ""


class Step(NamedTuple):
    """One optimizer update; `step` counts them from 1. A skipped step changed no weight.

    loss_scale  of fp16, for a mean loss; computed_tokens: where prefixes are shared; else None, and no key
    """

    step: int
    epoch: int
    loss: Number
    grad_norm: Number
    learning_rate: Number
    targets: int
    samples: int
    seconds: Seconds
    wait_seconds: Seconds
    skipped: bool = False
    tokens: int | None = None
    loss_scale: Number | None = None
    computed_tokens: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The model after `step` on the validation samples; `best` if no earlier one was better.

    At step 0 it is what training starts from, and never the best; one that was `asked` for decides nothing.
    `metrics` by name, and by `name/capability`; `loss_error`: standard error from the choice of rows.
    """

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float | None
    targets: int
    seconds: Seconds
    best: bool
    metrics: dict[str, float] = field(default_factory=dict)
    loss_error: float | None = None
    asked: bool = False


@dataclass(frozen=True)
class Scores:
    """The scores of a run on rows that it was not trained on, beside its start and the baselines.

    systems       figures of each system as [value, low, high] with a bootstrap interval of 95 %, by name
    gains         the run after training less each other system, over the same resamples
    capabilities  main figure of each system on the rows of each capability, and the number of those rows
    distinct      number of different predictions that the run made
    """

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

    step: int
    prompt: str
    text: str
    settings: dict[str, Any]
    reference: str | None = None
    stopped: bool | None = None
    capability: str | None = None


class Resource(NamedTuple):
    """Means since the last one; `mfu` is the share of the measured matrix rate.

    mapped_bytes  of rss_bytes, pages of files, which the system takes back when it needs them
    slowest_rank  whose own time in a step is the longest; median: of all ranks
    """

    step: int
    tokens_per_second: Number
    mfu: Number
    wait_ratio: Number
    cpu_percent: Number
    rss_bytes: int
    gpu_percent: Number | None = None
    gpu_memory_bytes: int | None = None
    mapped_bytes: int | None = None
    slowest_rank: int | None = None
    slowest_seconds: Number | None = None
    median_seconds: Number | None = None


ACCEPT, REFUSALS = "accept", ("refuse", "void")  # actions of answers: another follows; nothing was done
SEVERITIES = ("error", "warning", "info")  # the worst first


@dataclass(frozen=True)
class Finding:
    """A fact that a person should know, with its evidence.

    severity    info, warning or error
    window      the first and the last step that it rests on
    causes      explanations, the likeliest first
    changes     of the recipe that would help: values by key
    not_tested  what it does not rule out
    kind        stable name of the condition where the watch found it, as docs/watch.md lists them
    confidence  of the first cause, from 0 to 1
    decided_by  the test that set the first cause apart from the others
    source      of the advice: a publication, or an experiment of the benchmark
    """

    step: int
    what: str
    evidence: str
    advice: str
    severity: str = "warning"
    window: list[int] | None = None
    causes: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    not_tested: list[str] = field(default_factory=list)
    kind: str = ""
    confidence: float | None = None
    decided_by: str = ""
    source: str = ""


@dataclass(frozen=True)
class Judgement:
    """The success criteria of the recipe after an evaluation, or after the final scores.

    values  by criterion, as `gap below 0.5`; None where the figure was not measured
    met     those that hold; open: those that the end of the run decides
    """

    step: int
    values: dict[str, float | None]
    met: list[str]
    open: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Control:
    """A decision about the run after a step, and its reason.

    request    the id of the request that it answers
    changes    of the recipe: values by key, which hold after `from_step` steps; before: those they replaced
    who        asked for it, as `user@host`, by which channel, or None; exit_code: of a process that fails
    """

    step: int
    action: str
    reason: str
    request: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    from_step: int | None = None
    before: dict[str, Any] = field(default_factory=dict)
    who: str | None = None
    channel: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint whose manifest is on disk, and the head of the journal in it; None in older ones."""

    step: int
    name: str
    size: int
    blocking_seconds: Seconds
    write_seconds: Seconds
    journal: dict[str, Any] | None = None


@dataclass(frozen=True)
class DataUsed:
    """The counts of the prepared data.

    held_out   hash of the rows of each held-out set, by its use; empty in older journals
    tokenizer  hash of the tokenizer
    entropy    of the training targets by how often each occurs, in nats, where texts are learnt
    """

    fingerprint: str
    summary: dict[str, Any]
    held_out: dict[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    entropy: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The time, memory and disk that a run is expected to take in all, by its first steps; at 0 before them.

    Of `seconds`, those of evaluation are not spent in steps, of checkpoints some of these; memory is that of
    the GPU, or of the process where there is none; the interval, empty in older journals, is of seconds.
    """

    step: int
    seconds: Seconds
    evaluation_seconds: Seconds
    memory_bytes: int
    disk_bytes: int
    checkpoint_seconds: Seconds = 0.0
    interval: list[float] = field(default_factory=list)


Event = (
    Attempt | Step | Evaluation | Scores | Generation | Resource | Finding | Control | CheckpointSaved
    | DataUsed | Note | Rating | Forecast | Judgement | Execution
)  # fmt: skip
TYPES: dict[str, type[Event]] = {
    "attempt": Attempt, "step": Step, "evaluation": Evaluation, "scores": Scores, "generation": Generation,
    "resource": Resource, "finding": Finding, "control": Control, "checkpoint": CheckpointSaved,
    "data": DataUsed, "note": Note, "rating": Rating, "forecast": Forecast, "judgement": Judgement,
    "execution": Execution,
}  # fmt: skip
_NAMES = {kind: name for name, kind in TYPES.items()}


def type_of(event: Event) -> str:
    """The type of an event as a journal names it."""
    return _NAMES[type(event)]


def to_json(event: Event, time: float) -> dict[str, Any]:
    """Plain values for a journal line; non-finite numbers become "nan", "inf" and "-inf"."""
    values = event._asdict() if isinstance(event, Step | Resource) else asdict(event)
    named = {name: value for name, value in values.items() if value is not None or name not in RARE}
    return {"type": type_of(event), "time": round(time, 3), **plain(named)}


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


def plain(value: Any) -> Any:
    """A value as JSON has it: lists for tuples; "nan", "inf" and "-inf" for non-finite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_consistent(scores: Scores) -> bool:
    """True if each system has the same figures, the metric among them, each with its interval; counts fit."""
    figures = [list(values) for values in scores.systems.values()]
    rows, count = scores.confusion, len(scores.labels)
    of_systems = [each for values in scores.systems.values() for each in values.values()]
    return (
        "after" in scores.systems
        and scores.metric in figures[0]
        and all(names == figures[0] for names in figures)
        and scores.gains.keys() <= scores.systems.keys()
        and all(len(each) == 3 and not each[1] > each[2] for each in [*scores.gains.values(), *of_systems])
        and (not rows or (list(map(len, rows)) == [count] * count and sum(map(sum, rows)) == scores.rows))
        and (scores.distinct or 0) <= scores.rows
        and all({"rows", *scores.systems} == values.keys() for values in scores.capabilities.values())
        and all(math.isfinite(values["rows"]) for values in scores.capabilities.values())
    )


def _is_summary(data: DataUsed) -> bool:
    """True if the counts can be laid out as tables: objects of plain values, and lists of those."""
    part = Object(optional={"samples": int, "share": (float, None), "examples": list[str]})
    for name, value in data.summary.items():
        entries = value if isinstance(value, list) else [value]
        tables = [entry for entry in entries if isinstance(entry, dict)]
        is_use = name in ("train", "validation", "test") and value is not None
        if (tables and len(tables) < len(entries)) or (is_use and not tables):
            return False
        for table in tables:
            fit(table, part)
    return True


def _is_drawn(finding: Finding) -> bool:
    """True if the severity is known, the kind a name, the window two steps or none, and no text endless."""
    return (
        finding.severity in SEVERITIES
        and len(finding.window or ()) in (0, 2)
        and re.fullmatch("[a-z0-9_]{0,60}", finding.kind) is not None
        and len(str(finding)) <= 100_000
    )


_RULES: dict[str, Callable[[Any], bool]] = {
    "attempt": lambda event: "total" in event.parameters and fit(event.environment, ENVIRONMENT) is not None,
    "scores": _is_consistent,
    "generation": lambda event: fit(event.settings, Object(optional={"max_tokens": (int, None)})) is not None,
    "data": _is_summary,
    "finding": _is_drawn,
    "execution": Execution.is_consistent,
}
_FIELDS = {
    name: (
        {each.name: checker(each.annotation) for each in signature(kind).parameters.values()},
        {each.name for each in signature(kind).parameters.values() if each.default is each.empty},
    )
    for name, kind in TYPES.items()
}
