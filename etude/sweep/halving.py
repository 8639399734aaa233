"""Successive halving of a sweep while it runs, and the trials that it left at a rung.

A rung is a pause of a run at a step of its own schedule: no schedule is cut short, and a trial that goes on
is, bit for bit, the trial that never paused. Figures are those of the journals; `decisions.jsonl` has the
order in which trials came and went on, so that a controller that was killed decides as it would have.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from etude.records.events import Evaluation
from etude.report.history import metric_value
from etude.report.wording import short
from etude.sweep.cells import Cell, read_cells
from etude.sweep.decisions import Arrival, Decisions
from etude.sweep.folder import TrialState
from etude.sweep.rungs import AtRung, Rung
from etude.sweep.tree import Planned


@dataclass(frozen=True)
class Censored:
    """A trial that was left at a rung: its rank among those that came there, and how many went on."""

    step: int
    rank: int
    of: int
    gone_on: int


@dataclass(frozen=True)
class _Come:
    """A trial at a rung: the place of that from 0, its step, the metric there, and the time of that."""

    planned: Planned
    place: int
    step: int
    cell: Cell
    value: float | None
    time: float

    @property
    def name(self) -> str:
        return self.planned.trial.name

    @property
    def worth(self) -> float | None:
        return None if self.value is None else self.cell.metric.sign * self.value


class Rungs:
    """The rungs of a sweep while it runs, with the trials of each model that came to them."""

    def __init__(self, decisions: Decisions, tell: Callable[[str], None]) -> None:
        self._decisions, self._tell = decisions, tell
        self._by_place: dict[tuple[str, int], Rung] = {}  # by model and place
        self._come: dict[tuple[str, int], _Come] = {}  # by trial and place
        self._going: list[str] = []  # trials that go on since `take_going`

    def begin(self, planned: Sequence[Planned], states: Mapping[str, TrialState]) -> None:
        """Take in the trials that came to rungs before, in the order in which they did."""
        found = [
            come for each in planned if (state := states.get(each.trial.name)) for come in _read(each, state)
        ]
        order = {(each.trial, each.step): place for place, each in enumerate(self._decisions.came)}
        found.sort(key=lambda come: (order.get((come.name, come.step), inf), come.time, come.name))
        for come in found:
            state = states[come.name]
            is_beyond = state.is_finished or state.steps > come.step
            if is_beyond or (come.name, come.step) in self._decisions.gone_on:
                self._rung(come.planned, come.place).gone_on.add(come.name)
        for come in found:
            self._take(come, is_new=(come.name, come.step) not in order)

    def next_stop(self, planned: Planned) -> int | None:
        """The step at which a trial is to pause next; None if it goes on to its end."""
        for place, step in enumerate(planned.rungs):
            if planned.trial.name not in self._rung(planned, place).gone_on:
                return step
        return None

    def waits(self, planned: Planned) -> bool:
        """True if a trial has come to a rung and does not go on from it so far."""
        place = len(planned.rungs) if (stop := self.next_stop(planned)) is None else planned.rungs.index(stop)
        return (planned.trial.name, place) in self._come

    def arrive(self, planned: Planned, state: TrialState) -> bool:
        """Take in a trial that has paused where it is to; False if it has not, or is yet to be measured."""
        if state.is_finished or state.steps != self.next_stop(planned):
            return False
        come = _read(planned, state)[-1:]
        if not come or come[0].step != state.steps:
            return False
        if (planned.trial.name, come[0].place) not in self._come:
            self._take(come[0], is_new=True)
        return True

    def take_going(self) -> list[str]:
        """The trials that go on since the last call."""
        going, self._going = self._going, []
        return going

    def spare(self, models: Collection[str]) -> None:
        """Let the best of each other model go on from its highest rung, when nothing else is under way.

        models: those with a trial that has ended
        """
        for model in dict.fromkeys(model for model, _ in self._by_place if model not in models):
            places = sorted((place for each, place in self._by_place if each == model), reverse=True)
            for place in places:
                if (name := self._by_place[model, place].best_left()) is not None:
                    self._by_place[model, place].gone_on.add(name)
                    self._go_on(self._come[name, place])
                    break

    def at_rungs(self) -> dict[str, AtRung]:
        """The highest rung that each trial came to, by its name."""
        highest = {name: come for (name, _), come in sorted(self._come.items())}
        return {
            name: AtRung(come.place, come.worth, self.waits(come.planned)) for name, come in highest.items()
        }

    def _rung(self, planned: Planned, place: int) -> Rung:
        assert planned.trial.halving is not None
        key, factor = (planned.trial.model, place), planned.trial.halving.reduction_factor
        return self._by_place.setdefault(key, Rung(factor))

    def _take(self, come: _Come, *, is_new: bool) -> None:
        rung = self._rung(come.planned, come.place)
        self._come[come.name, come.place] = come
        going = rung.add(come.name, come.worth)
        if is_new:
            rank, of = rung.rank(come.name), len(rung)
            self._decisions.arrive(Arrival(come.name, come.step, come.value, rank, of))
            figure = f"{come.cell.metric} {short(come.value, 4)}"
            self._tell(f"paused    {come.name} at step {come.step:,}: {figure}, {rank:,} of {of:,}")
        for name in going:
            self._go_on(self._come[name, come.place])

    def _go_on(self, come: _Come) -> None:
        rung = self._rung(come.planned, come.place)
        rank, of = rung.rank(come.name), len(rung)
        self._decisions.go_on(come.name, come.step, rank, of)
        self._tell(f"goes on   {come.name} from step {come.step:,}: {rank:,} of {of:,}")
        self._going.append(come.name)


def find_censored(cells: Sequence[Cell]) -> dict[str, Censored]:
    """The trials of a model that were left at rungs, by name, with their ranks; from the journals alone."""
    found: dict[str, Censored] = {}
    for cell in [cell for cell in cells if cell.rung is not None]:
        assert cell.rung is not None
        place, own = cell.rungs.index(cell.rung.step), cell.value
        rivals = [(each, value) for each in cells for value in _values_at(each, place)]
        known = [value for _, value in rivals if value is not None]
        ahead = sum(own is None or cell.metric.gain(value, own) > 0 for value in known)
        gone_on = sum(each.is_final or each["step"] > each.rungs[place] for each, _ in rivals)
        found[cell.name] = Censored(cell.rung.step, 1 + ahead, len(rivals), gone_on)
    return found


def _values_at(cell: Cell, place: int) -> list[float | None]:
    """The metric of a trial at a rung; empty if it did not come there."""
    steps = cell.rungs[place : place + 1]
    return [_finite(cell, cell.evaluations[step][0]) for step in steps if step in cell.evaluations]


def _finite(cell: Cell, evaluation: Evaluation) -> float | None:
    value = metric_value(evaluation, str(cell.metric))
    return value if value is not None and isfinite(value) else None


def _read(planned: Planned, state: TrialState) -> list[_Come]:
    """The rungs that a trial has come to, by its run; the one that it stands at only once it is measured."""
    if not planned.rungs or state.steps < planned.rungs[0]:
        return []
    (cell,) = read_cells([planned.trial], {planned.trial.name: state.run})
    found = []
    for place, step in enumerate(planned.rungs):
        if step in cell.evaluations and step <= state.steps:
            evaluation, time = cell.evaluations[step]
            found.append(_Come(planned, place, step, cell, _finite(cell, evaluation), time))
        elif step < state.steps:
            found.append(_Come(planned, place, step, cell, None, inf))
    return found
