"""Figures as a text tells them: the place of each, and the records that it follows from.

A text is written with marks around its figures, which no foreign text can have, as `clean` escapes them;
`take_marks` then parts the text from the places. So a figure and its source are told at one place.
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.records.events import Attempt, Event, type_of
from etude.report.figures import Figure, Source, source_of
from etude.report.history import History

_OPEN, _NEXT, _CLOSE = "\ue000", "\ue001", "\ue002"
_MARK = re.compile(f"{_OPEN}([0-9a-f]*){_NEXT}([^{_OPEN}-{_CLOSE}]*){_CLOSE}")


@dataclass(frozen=True)
class Told:
    """A place of a text, from character `start` to `end`, and the figures that it is made of."""

    start: int
    end: int
    figures: tuple[Figure, ...]


def told(text: str, *figures: Figure) -> str:
    """A text with a mark that it tells these figures; one without a value is none."""
    known = [
        [each.name, each.to_json(), each.unit, each.statistic, each.source]
        for each in figures
        if each.value is not None
    ]
    return f"{_OPEN}{json.dumps(known).encode().hex()}{_NEXT}{text}{_CLOSE}" if known else text


def told_of(
    text: str, name: str, value: Any, events: Sequence[Event | None], *, unit: str, statistic: str
) -> str:
    """A text that tells a value of some records of one kind."""
    return told(text, Figure(name, value, unit, statistic, source_of(events)))


def take_marks(marked: str) -> tuple[str, list[Told]]:
    """The text without its marks, and the places that they marked."""
    parts: list[str] = []
    found: list[Told] = []
    place = at = 0
    for mark in _MARK.finditer(marked):
        parts += [marked[at : mark.start()], mark[2]]
        start = place + mark.start() - at
        place, at = start + len(mark[2]), mark.end()
        figures = [
            Figure(name, value, unit, statistic, tuple(Source(*each) for each in source))
            for name, value, unit, statistic, source in json.loads(bytes.fromhex(mark[1]))
        ]
        found.append(Told(start, place, tuple(figures)))
    return "".join([*parts, marked[at:]]), found


def mark_places(text: str, places: Sequence[Told]) -> str:
    """A text with marks that `tag_marks` finds again, numbered, around its places."""
    parts, at = [], 0
    for number, each in enumerate(places):
        parts += [text[at : each.start], f"{_OPEN}{number:x}{_NEXT}{text[each.start : each.end]}{_CLOSE}"]
        at = each.end
    return "".join([*parts, text[at:]])


def tag_marks(page: str, values: Sequence[dict[str, Any]]) -> str:
    """A page with an element in place of each mark of `mark_places`; `values` are those of `to_values`."""

    def tag(mark: re.Match[str]) -> str:
        figures = values[int(mark[1], 16)]["figures"]
        names = ("name", "value", "unit", "statistic")
        shown = {name: "; ".join(_text(each[name]) for each in figures) for name in names}
        shown["records"] = "; ".join(_text(each["records"]) for each in figures)
        data = "".join(f' data-{key}="{html.escape(text)}"' for key, text in shown.items())
        return f'<span class="figure"{data}>{mark[2]}</span>'

    return re.sub(f"{_OPEN}([0-9a-f]+){_NEXT}(.*?){_CLOSE}", tag, page, flags=re.DOTALL)


def to_values(text: str, places: Iterable[Told], counts: "Counts") -> list[dict[str, Any]]:
    """Places and their figures as plain values for JSON."""
    return [
        {
            "line": text.count("\n", 0, each.start) + 1, "start": each.start, "end": each.end,
            "text": text[each.start : each.end], "figures": [to_value(one, counts) for one in each.figures],
        }
        for each in places
    ]  # fmt: skip


def to_value(figure: Figure, counts: "Counts") -> dict[str, Any]:
    """A figure as plain values: its value, unit and statistic, and its records with their number."""
    records = [
        {
            "kind": kind,
            **({} if first is None else {"first": first, "last": last}),
            **counts.of(kind, first, last),
        }
        for kind, first, last in figure.source
    ]
    return {
        "name": figure.name, "value": figure.to_json(), "unit": figure.unit, "statistic": figure.statistic,
        "records": records,
    }  # fmt: skip


class Counts:
    """The numbers of the records of a run that count, by their kind and steps."""

    def __init__(self, history: History) -> None:
        self._places: dict[str, list[int]] = {}
        for event, _, _ in history.ledger.entries:
            place = event.number if isinstance(event, Attempt) else getattr(event, "step", 0)
            self._places.setdefault(type_of(event), []).append(place)

    def of(self, kind: str, first: int | None, last: int | None) -> dict[str, int]:
        """The number of the records of a source, as `n`; nothing for a file."""
        places = self._places.get(kind)
        if places is None:
            return {}
        if first is None or last is None:
            return {"n": len(places)}
        return {"n": sum(first <= place <= last for place in places)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
