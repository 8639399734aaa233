"""The changes of a run's recipe, as the control records of its journal have them."""

from etude.recipe.course import Change
from etude.records.events import Control


def changes_of(control: Control) -> list[Change]:
    """The changes that a record says were made; none for another decision."""
    if control.from_step is None:
        return []
    reason, asked = control.reason.partition(": ")[2], (control.request, control.who, control.channel)
    return [Change(control.from_step, key, value, reason, *asked) for key, value in control.changes.items()]
