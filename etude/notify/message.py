"""One message to people about a run."""

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, get_args

from etude.recipe.notify import MessageKind
from etude.records.events import SEVERITIES, TIME
from etude.records.shape import Object, fit, matching, one_of

KINDS: tuple[str, ...] = get_args(MessageKind)
_ENDINGS = ("stopped", "session end", "finished")
_SHAPE = Object(
    {
        "id": Annotated[str, matching("[0-9a-f]{16}")], "kind": Annotated[str, one_of(*KINDS)],
        "severity": Annotated[str, one_of(*SEVERITIES)], "cause": str, "run": str, "step": int, "title": str,
        "text": str, "time": TIME,
    },
    {"figures": Object(), "commands": [str]},
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message, clean of secrets and control characters.

    cause     of two messages with the same one, a run sends one
    figures   of the run at that step, by name
    commands  to type, the first of them the next thing to do
    """

    kind: str
    severity: str
    cause: str
    run: str
    step: int
    title: str
    text: str
    figures: dict[str, float] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    time: float = field(default_factory=lambda: round(time.time(), 3))

    @property
    def full(self) -> str:
        """Title, text and commands."""
        return "\n".join([self.title, self.text, *self.commands])

    @property
    def rank(self) -> int:
        """Its importance, the highest first: 0 faults, 1 ends of a run, 2 findings of errors, 3 the rest."""
        if self.kind == "fault":
            return 0
        if self.kind in _ENDINGS:
            return 1
        return 2 if self.severity == "error" else 3

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: Any) -> "Message":
        """The message of plain values. Raises: ValueError if they are of none."""
        found = fit(values, _SHAPE)
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})
