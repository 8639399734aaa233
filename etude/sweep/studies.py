"""The searches of a sweep as studies of Optuna in an SQLite file, a copy for its dashboard."""

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from etude.recipe.toml import toml_text
from etude.records.events import Evaluation
from etude.report.history import metric_value
from etude.sweep.cells import Cell
from etude.sweep.deliverables import Deliverables
from etude.sweep.grid import Study
from etude.sweep.schema import Range
from etude.sweep.search import fits, load_optuna, space_of

_FAILED = ("failed", "damaged")


def studies_file(made: Deliverables) -> bytes:
    """An SQLite file with a study for each search, named `SWEEP SEARCH`.

    Trials that ended have their value and their evaluations by step. One that was left at a rung is pruned,
    with its value there. Any other is running, waiting or failed, and has no value. Those outside the ranges
    of the file are left out.
    """
    optuna = load_optuna()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "studies.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        for study in made.sweep.studies:
            cells = [cell for cell in made.cells if cell.trial.study == study.name]
            lower = bool(cells) and cells[0].metric.lower_is_better
            copy = optuna.create_study(
                study_name=f"{made.sweep.file.name} {study.name}", storage=storage,
                direction="minimize" if lower else "maximize",
            )  # fmt: skip
            copy.add_trials([_trial(optuna, study, each) for each in cells if fits(study, each.trial.values)])
        storage.engine.dispose()
        return path.read_bytes()


def _trial(optuna: Any, study: Study, cell: Cell) -> Any:
    """A trial as Optuna keeps it, with the times of its run."""
    value = cell.value if cell.is_final or cell.rung else None
    entries = cell.history.ledger.entries if cell.history else []
    made = optuna.trial.create_trial(
        state=_state(optuna, cell), value=value,
        params={each.key_: _choice(cell.trial.values[each.key_]) for each in study.ranges},
        distributions={each.key_: _space(optuna, each) for each in study.ranges},
        user_attrs={"trial": cell.name, "run": cell.run, "state": cell.state},
        intermediate_values=_series(cell),
    )  # fmt: skip
    if entries and made.datetime_start is not None:
        made.datetime_start = datetime.fromtimestamp(entries[0].time)
    if entries and made.datetime_complete is not None:
        made.datetime_complete = datetime.fromtimestamp(entries[-1].time)
    return made


def _state(optuna: Any, cell: Cell) -> Any:
    states = optuna.trial.TrialState
    if cell.is_final and cell.value is not None:
        return states.COMPLETE
    if cell.rung:
        return states.PRUNED
    if cell.is_final or cell.state in _FAILED:
        return states.FAIL
    return states.RUNNING if cell.run else states.WAITING


def _series(cell: Cell) -> dict[int, float]:
    """The metric of each evaluation, by its step."""
    found: dict[int, float] = {}
    for event in cell.history.events(Evaluation) if cell.history else ():
        if (value := metric_value(event, str(cell.metric))) is not None:
            found[event.step] = value
    return found


def _space(optuna: Any, given: Range) -> Any:
    """The distribution of a range, of a list with its values."""
    if given.values is not None:
        return optuna.distributions.CategoricalDistribution([_choice(value) for value in given.values])
    return space_of(optuna, given)


def _choice(value: Any) -> Any:
    """A value as Optuna stores it: lists and tables as text."""
    return value if isinstance(value, str | int | float) else toml_text(value)
