"""Records of what people say of a run; some of the types of `events.py`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Words of a person, under a heading of the report."""

    section: str
    text: str
    author: str | None = None


@dataclass(frozen=True)
class Rating:
    """The opinion of a person on a generation, which `step`, `prompt` and `text` name.

    `score` from 1 to 5; or, beside the run `against` and not knowing which is which, 1 if better, 0.5 if as
    good, 0 if worse.
    """

    step: int
    prompt: str
    text: str
    rater: str
    score: float
    against: str | None = None
