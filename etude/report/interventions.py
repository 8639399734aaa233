"""The interventions of people, of the watch and of restarts in a run, in words."""

from collections.abc import Iterator
from dataclasses import dataclass

from etude.recipe.course import Change
from etude.recipe.toml import toml_text
from etude.records.changes import all_changes
from etude.records.events import ACCEPT, Attempt, Control
from etude.report.history import History
from etude.report.markdown import fence, prose, table
from etude.report.wording import duration, moment, number
from etude.text import one_line, plural

_WATCH = "watch"  # as records of its decisions name it
_LONGEST = 1000


@dataclass(frozen=True)
class Intervention:
    """One line: the Unix time, the step, who did it, and what, with its effect."""

    time: float
    step: int
    who: str
    what: str

    def __str__(self) -> str:
        return f"step {self.step:,}: {self.who}, {self.what}"


def interventions(history: History) -> list[Intervention]:
    """Requests with their answers, the watch's decisions and restarts, in the order they came."""
    found = []
    planned = history.attempts[-1].steps if history.attempts else None
    for entry in history.ledger.entries:
        event = entry.event
        if isinstance(event, Control) and event.action != ACCEPT:  # another answer follows
            if not (event.action == "finish" and event.step == planned):
                found.append(Intervention(entry.time, event.step, _who(event), what_was_done(event)))
        elif isinstance(event, Attempt) and event.number > 1:
            source = f"from {event.checkpoint}" if event.checkpoint else "from the start"
            said = "; ".join([f"attempt {event.number} {source}", *event.changed])
            found.append(Intervention(entry.time, event.from_step, "the run", said))
    return found


def what_was_done(control: Control) -> str:
    """The change or the action, and its reason."""
    if not control.changes:
        return one_line(f"{control.action}: {control.reason}", _LONGEST)
    made = [
        f"{key} {_value(control.before[key])} → {_value(value)}"
        if key in control.before
        else f"{key} = {_value(value)}"
        for key, value in control.changes.items()
    ]
    back = f"back to step {control.from_step:,}, " if control.action == "back" else ""
    later = control.from_step is not None and control.from_step > control.step
    when = f" after step {control.from_step:,}" if later else ""
    reason = control.reason.partition(": ")[2]
    return one_line(f"{back}{', '.join(made)}{when}{': ' * bool(reason)}{reason}", _LONGEST)


def origin_text(history: History) -> str | None:
    """The run that a fork goes on from, a replay makes again, or first weights are of; None for another."""
    info = history.run.info
    if origin := info.get("origin"):
        others = [f", with {key} = {toml_text(value)}" for key, value in origin.get("changes", {}).items()]
        return f"step {origin['step']:,} of {origin['run']}{''.join(others)}"
    if info.get("replays"):
        return f"a replay of {info['replays']}"
    return f"the weights of {info['parent']}" if info.get("parent") else None


def describe_interventions(history: History) -> Iterator[str]:
    """The interventions as a table, and the changes as `etude train RECIPE --replay RUN` takes them."""
    if origin := origin_text(history):
        yield f"The run comes from {prose(origin)}."
    rows = [
        (moment(each.time), number(each.step), prose(each.who), prose(each.what))
        for each in interventions(history)
    ]
    if rows:
        yield table(("time (UTC)", "step", "who", "what"), rows)
    if rework := history.rework:
        lost = duration(sum(step.seconds for step in rework))
        yield f"Rework: {plural(len(rework), 'step')} done again, {lost}."
    if changes := all_changes(entry.event for entry in history.ledger.entries):
        yield "Its changes, which `--replay` makes again:"
        yield fence("\n".join(map(_toml, changes)))


def _toml(change: Change) -> str:
    key, value = toml_text(change.key), toml_text(change.value)
    return f"[[changes]]\nstep = {change.step}\nkey = {key}\nvalue = {value}"


def _who(control: Control) -> str:
    if control.request == _WATCH:
        return "the watch"
    if control.who is None:
        return "the run" if control.channel is None else f"the {control.channel}"
    return f"{control.who} ({control.channel})" if control.channel else control.who


def _value(value: object) -> str:
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    return "not set" if value is None else toml_text(value)
