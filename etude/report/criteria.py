"""The success criteria of a run, as its records have judged them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from etude.records.ending import Ending
from etude.records.events import Control, Judgement
from etude.records.trackers import describe_judgement
from etude.report.history import History
from etude.report.markdown import prose, table
from etude.report.wording import number, short

_SHOWN = 5


def describe_criteria(history: History) -> Iterator[str]:
    """A table of the criteria over the last evaluations."""
    judged = newest(history.events(Judgement))
    if not judged:
        return
    judged[-1] = _decided(judged[-1], history)
    shown = judged[-_SHOWN:]
    words = {"met": "yes", "open": "open", "missed": "no"}
    states = state_of_criteria(judged[-1])
    rows = [(prose(name), *(_cell(each, name) for each in shown), words[states[name]]) for name in states]
    yield table(("criterion", *(f"step {number(each.step)}" for each in shown), "met"), rows)


def criteria_at_end(history: History) -> Judgement | None:
    """The last judgement, in which nothing is open once the run has ended; None without any."""
    judged = history.events(Judgement)
    return _decided(judged[-1], history) if judged else None


def state_of_criteria(judgement: Judgement) -> dict[str, str]:
    """Each criterion as `met`, `open` or `missed`."""
    states = dict.fromkeys(judgement.values, "missed") | dict.fromkeys(judgement.open, "open")
    return states | dict.fromkeys(judgement.met, "met")


def criteria_text(history: History) -> str | None:
    """The criteria at the end in a line, as `1 of 2 met; not gap below 0.5 (1.25)`; None without any."""
    judgement = criteria_at_end(history)
    return describe_judgement(judgement) if judgement else None


def newest(judged: Sequence[Judgement]) -> list[Judgement]:
    """The last judgement of each step."""
    return list({each.step: each for each in judged}.values())


def _decided(judgement: Judgement, history: History) -> Judgement:
    """A judgement after which nothing is open if the run has ended."""
    ended = [each for each in history.events(Control) if Ending.of(each)][-1:]
    return replace(judgement, open=[]) if ended and ended[0].action in ("finish", "fail") else judgement


def _cell(judgement: Judgement, name: str) -> str:
    value = judgement.values.get(name)
    return (
        _value(value)
        if value is None or name in (*judgement.met, *judgement.open)
        else f"**{_value(value)}**"
    )


def _value(value: float | None) -> str:
    return "not measured" if value is None else short(value)
