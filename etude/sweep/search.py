"""Searches of a sweep: the values of each next trial, chosen from what the trials before it came to.

A choice depends on the sweep file, its number and the values known then, and on nothing that a process holds:
each is made by a sampler of its own from a study in memory, which is made of the choices and the runs.
"""

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from etude.errors import InputError, RecipeError
from etude.recipe.load import values_hash
from etude.recipe.toml import toml_text
from etude.sweep.cells import Cell, read_cells
from etude.sweep.decisions import Choice, Decisions
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Study, Sweep, Trial
from etude.sweep.rungs import AtRung
from etude.sweep.schema import Range
from etude.sweep.standing import same_rows

_TRIES = 32  # of values that no trial has yet
_DIGITS = 4


@dataclass(frozen=True)
class Known:
    """A trial that was chosen before, as a search sees it.

    worth   its metric with the sign by which more is better, once it has ended with one
    is_out  True if it will have none
    at      the highest rung that it came to
    trial   its name, once it has ended
    """

    values: Mapping[str, Any]
    worth: float | None = None
    is_out: bool = False
    at: AtRung | None = None
    trial: str = ""

    @property
    def is_under_way(self) -> bool:
        """True if it is being trained, or is to be."""
        return self.worth is None and not self.is_out and not (self.at and self.at.waits)


def with_found(sweep: Sweep, choices: Sequence[Choice]) -> Sweep:
    """The sweep with the trials that its searches have chosen so far, as far as the file still has them."""
    studies = {study.name: study for study in sweep.studies}
    found = [
        trial
        for choice in choices
        if choice.study in studies
        for trial in trial_of(studies[choice.study], choice)
    ]
    return replace(sweep, trials=(*sweep.trials, *found))


def foresee(sweep: Sweep) -> Sweep:
    """The sweep with as many trials as its searches will choose, drawn at random, for its plan."""
    found: list[Choice] = []
    for study in sweep.studies:
        known: list[Known] = []
        while len(known) < study.search.trials and (choice := choose(study, len(known), known)) is not None:
            known.append(Known(choice.values, is_out=True))
            found.append(choice)
    return with_found(sweep, found)


def choose(study: Study, number: int, known: Sequence[Known]) -> Choice | None:
    """The choice of a number, after others; None if every try gives values that a trial has already."""
    before = [dict(each.values) for each in known]
    for attempt in range(_TRIES):
        values = _ask(study, number, attempt, known)
        if values not in before:
            break
    else:
        return None
    trial, problem = study.name_of(number), ""
    try:
        study.trial(number, values)
    except RecipeError as error:
        problem = str(error.problems[0])  # without its place in a file
    return Choice(study.name, number, trial, values, problem)


def trial_of(study: Study, choice: Choice) -> list[Trial]:
    """The trial of a choice, if the search of the file could still make it."""
    keys = {each.key_ for each in study.ranges}
    if choice.problem or choice.number >= study.search.trials or set(choice.values) != keys:
        return []
    with contextlib.suppress(RecipeError):
        return [study.trial(choice.number, choice.values)]
    return []


def _ask(study: Study, number: int, attempt: int, known: Sequence[Known]) -> dict[str, Any]:
    """Values that a new sampler gives after these trials."""
    optuna = load_optuna()
    seed = int(values_hash({"of": [study.search.seed, study.name, number, attempt]})[:8], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.search.sampler == "tpe":
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
    spaces = {each.key_: space_of(optuna, each) for each in study.ranges}
    asked = optuna.create_study(sampler=sampler, direction="maximize")
    asked.add_trials([_frozen(optuna, study, each, spaces) for each in known if fits(study, each.values)])
    given = asked.ask(spaces).params
    return {each.key_: _value(each, given[each.key_]) for each in study.ranges}


def load_optuna() -> Any:
    """Optuna, which says nothing of its own. Raises: InputError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise InputError('[search] needs Optuna; pip install "etude-workbench[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def space_of(optuna: Any, given: Range) -> Any:
    """The distribution of a range; of a list that of its places."""
    if given.values is not None:
        return optuna.distributions.CategoricalDistribution(range(len(given.values)))
    kind = "IntDistribution" if given.is_whole else "FloatDistribution"
    return getattr(optuna.distributions, kind)(given.low, given.high, log=given.log)


def _frozen(optuna: Any, study: Study, known: Known, spaces: Mapping[str, Any]) -> Any:
    """A trial as Optuna keeps it: complete, failed, pruned at a rung, or running, which is kept away from."""
    states = optuna.trial.TrialState
    state = states.FAIL if known.is_out else states.RUNNING if known.worth is None else states.COMPLETE
    figures = {}
    if state == states.RUNNING and known.at and known.at.worth is not None:
        state, figures = states.PRUNED, {known.at.place: known.at.worth}
    params = {
        each.key_: each.values.index(known.values[each.key_]) if each.values else known.values[each.key_]
        for each in study.ranges
    }
    return optuna.trial.create_trial(
        state=state, value=known.worth, params=params, distributions=dict(spaces),
        intermediate_values=figures,
    )  # fmt: skip


def fits(study: Study, values: Mapping[str, Any]) -> bool:
    """True if values lie in the ranges of a study, which may have changed since they were chosen."""
    return all(_holds(each, values[each.key_]) for each in study.ranges)


def _holds(given: Range, value: Any) -> bool:
    if given.values is not None:
        return value in given.values
    assert given.low is not None and given.high is not None
    return isinstance(value, int | float) and bool(given.low <= value <= given.high)


def _value(given: Range, chosen: Any) -> Any:
    """A value for a recipe: fractions with a few digits, so that they can be read."""
    if given.values is not None:
        return given.values[chosen]
    if given.is_whole:
        return int(chosen)
    assert given.low is not None and given.high is not None
    return min(max(float(f"{chosen:.{_DIGITS}g}"), float(given.low)), float(given.high))


class Searches:
    """The searches of a sweep while it runs: each has as many trials under way as there are places."""

    def __init__(
        self, sweep: Sweep, folder: SweepFolder, decisions: Decisions, tell: Callable[[str], None]
    ) -> None:
        self._studies, self._folder, self.decisions, self._tell = sweep.studies, folder, decisions, tell
        self._is_at_end: set[str] = set()  # names of studies that have no other values
        self._ended: dict[str, Known] = {}
        self._cells: dict[str, Cell] = {}  # of the trials that ended with a value
        self._told: set[str] = set()  # names of trials that compare with no other of their search

    @property
    def left(self) -> dict[str, int]:
        """The number of trials that each search is still to choose, where there are some."""
        counts = {
            study.name: study.search.trials - self._next_number(study)
            for study in self._studies
            if study.name not in self._is_at_end
        }
        return {name: count for name, count in counts.items() if count > 0}

    def choose(
        self, places: int, given_up: Collection[str], at_rungs: Mapping[str, AtRung] = MappingProxyType({})
    ) -> list[Trial]:
        """The trials that are chosen now, each recorded first, then written.

        given_up: trials that will have no value. at_rungs: trials that came to rungs.
        """
        chosen: list[Trial] = []
        for study in self._studies:
            while study.name in self.left:
                known = self._comparable(study, list(self._known(study, given_up, at_rungs)))
                if sum(each.is_under_way for each in known) >= max(places, 1):
                    break
                choice = choose(study, self._next_number(study), known)
                if choice is None:
                    self._is_at_end.add(study.name)
                    self._tell(f"search    {study.name} has tried all its values")
                    break
                self.decisions.add(choice)
                if choice.problem:
                    self._tell(f"left out  {choice.trial}: {choice.problem}")
                else:
                    values = ", ".join(f"{key} {toml_text(value)}" for key, value in choice.values.items())
                    self._tell(f"chosen    {choice.trial}: {values}")
                    chosen += trial_of(study, choice)
        self._folder.add(chosen)
        return chosen

    def _next_number(self, study: Study) -> int:
        numbers = [choice.number for choice in self.decisions.found if choice.study == study.name]
        return max(numbers, default=-1) + 1

    def _known(
        self, study: Study, given_up: Collection[str], at_rungs: Mapping[str, AtRung]
    ) -> Iterator[Known]:
        for choice in self.decisions.found:
            if choice.study == study.name and {each.key_ for each in study.ranges} == set(choice.values):
                if choice.problem or choice.trial in given_up:
                    yield Known(choice.values, is_out=True)
                else:
                    known = self._ended.get(choice.trial) or self._read(study, choice)
                    yield replace(known, at=at_rungs.get(choice.trial))

    def _comparable(self, study: Study, known: list[Known]) -> list[Known]:
        """The trials of a search, without values of those that are not measured as its first is."""
        first = next((cell for each in known if (cell := self._cells.get(each.trial))), None)
        found = []
        for each in known:
            cell = self._cells.get(each.trial)
            if first and cell and same_rows([first, cell]) is False:
                each = replace(each, worth=None, is_out=True)
                if cell.name not in self._told:
                    self._told.add(cell.name)
                    self._tell(
                        f"search    {study.name}: {cell.name} does not compare with {first.name}, as it has "
                        "other rows, tokens or metric; nothing is chosen by its value"
                    )
            found.append(each)
        return found

    def _read(self, study: Study, choice: Choice) -> Known:
        """A trial as its run tells it, kept once it has ended."""
        trials = trial_of(study, choice)
        if not trials:  # the file has changed, and makes no recipe of it
            return Known(choice.values, is_out=True)
        state = self._folder.read(trials).get(choice.trial)
        if state is None or not state.is_finished:
            return Known(choice.values)
        (cell,) = read_cells(trials, {choice.trial: state.run})
        worth = None if cell.value is None else cell.metric.sign * cell.value
        known = Known(choice.values, worth, is_out=worth is None, trial=choice.trial)
        self._ended[choice.trial] = known
        if worth is not None:
            self._cells[choice.trial] = cell
        return known
