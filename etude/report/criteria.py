"""The success criteria of a run, as its records have judged them."""

from collections.abc import Iterator, Sequence

from etude.records.events import Judgement
from etude.report.history import History
from etude.report.markdown import prose, table
from etude.report.wording import number, short

_SHOWN = 5


def describe_criteria(history: History) -> Iterator[str]:
    """A table of the criteria over the last evaluations."""
    judged = newest(history.events(Judgement))
    if not judged:
        return
    shown = judged[-_SHOWN:]
    rows = [
        (prose(name), *(_cell(each, name) for each in shown), "yes" if name in judged[-1].met else "no")
        for name in judged[-1].values
    ]
    yield table(("criterion", *(f"step {number(each.step)}" for each in shown), "met"), rows)


def criteria_text(history: History) -> str | None:
    """The criteria at the end in a line, as `1 of 2 met; not gap below 0.5 (1.25)`; None without any."""
    judged = history.events(Judgement)
    if not judged:
        return None
    last = judged[-1]
    missed = [f"{name} ({_value(value)})" for name, value in last.values.items() if name not in last.met]
    return f"{len(last.met)} of {len(last.values)} met" + (f"; not {', '.join(missed)}" if missed else "")


def newest(judged: Sequence[Judgement]) -> list[Judgement]:
    """The last judgement of each step."""
    return list({each.step: each for each in judged}.values())


def _cell(judgement: Judgement, name: str) -> str:
    value = judgement.values.get(name)
    return _value(value) if value is None or name in judgement.met else f"**{_value(value)}**"


def _value(value: float | None) -> str:
    return "not measured" if value is None else short(value)
