"""What a journal holds: one frozen dataclass a type, each a line of JSON.

Losses are in nats per target, over all ranks. Times are seconds; `time` is Unix time, durations come from
a monotonic clock.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Attempt:
    """A start or restart; records of earlier attempts beyond `from_step` no longer count."""

    type: ClassVar = "attempt"
    number: int
    from_step: int
    steps: int
    steps_per_epoch: int
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
    seconds: float
    wait_seconds: float
    skipped: bool = False
    tokens: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The model after `step` on the validation samples; `best` if no earlier one was better."""

    type: ClassVar = "evaluation"
    step: int
    loss: float
    perplexity: float
    bits_per_byte: float | None
    targets: int
    seconds: float
    best: bool
    metrics: dict[str, float] = field(default_factory=dict)


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
    """Something a person should know, with its evidence."""

    type: ClassVar = "finding"
    step: int
    what: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Control:
    """A request or a decision that changed the course of the run, and its reason."""

    type: ClassVar = "control"
    step: int
    action: str
    reason: str


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint whose manifest is on disk."""

    type: ClassVar = "checkpoint"
    step: int
    name: str
    size: int
    blocking_seconds: float
    write_seconds: float


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


Event = Attempt | Step | Evaluation | Generation | Resource | Finding | Control | CheckpointSaved | DataUsed | Note
TYPES: dict[str, type[Event]] = {
    event.type: event
    for event in (
        Attempt, Step, Evaluation, Generation, Resource, Finding, Control, CheckpointSaved, DataUsed, Note,
    )
}  # fmt: skip


def to_json(event: Event, time: float) -> dict[str, Any]:
    """Plain values for a journal line; non-finite numbers become "nan", "inf" and "-inf"."""
    return {
        "type": event.type,
        "time": round(time, 3),
        **{name: _plain(value) for name, value in asdict(event).items()},
    }


def from_json(record: dict[str, Any]) -> Event | None:
    """The event of a journal line; None for a type this version does not know. Unknown keys are ignored."""
    event = TYPES.get(record["type"])
    if event is None:
        return None
    fields = event.__dataclass_fields__
    return event(**{name: _number(value) for name, value in record.items() if name in fields and name != "type"})


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
