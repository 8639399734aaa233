"""The changes of a run's recipe, as the control records of its journal have them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from etude.recipe.course import STEPS, Change
from etude.records.events import Attempt, Control, Event


def changes_of(control: Control) -> list[Change]:
    """The changes that a record says were made; none for another decision."""
    if control.from_step is None:
        return []
    reason, asked = control.reason.partition(": ")[2], (control.request, control.who, control.channel)
    return [Change(control.from_step, key, value, reason, *asked) for key, value in control.changes.items()]


def last_values(events: Iterable[Event]) -> dict[str, Any]:
    """The last value of each key that the records change."""
    made = [each for event in events if isinstance(event, Control) for each in changes_of(event)]
    return {change.key: change.value for change in sorted(made, key=lambda change: change.step)}


def planned_by(event: Event) -> int | None:
    """The steps of the whole run that a record plans; None for a record that plans none."""
    if isinstance(event, Attempt):
        return event.steps
    return event.changes.get(STEPS) if isinstance(event, Control) else None


def attempts_of(events: Iterable[Event]) -> list[Attempt]:
    """Every attempt, each with the steps that were planned when it ended."""
    attempts: list[Attempt] = []
    for event in events:
        if isinstance(event, Attempt):
            attempts.append(event)
        elif attempts and (planned := planned_by(event)):
            attempts[-1] = replace(attempts[-1], steps=planned)
    return attempts


def all_changes(events: Iterable[Event]) -> list[Change]:
    """Every change of a run in the order of their steps; one that was recorded again counts once."""
    found: dict[tuple[Any, ...], Change] = {}
    for event in events:
        for each in changes_of(event) if isinstance(event, Control) else ():
            found.setdefault((each.request, each.step, each.key, repr(each.value)), each)
    return sorted(found.values(), key=lambda change: change.step)
