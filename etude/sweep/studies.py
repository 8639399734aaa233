"""The searches of a sweep as studies of Optuna, in SQLite and in PostgreSQL: copies for its dashboard."""

import contextlib
from datetime import datetime
from typing import Any

from etude.errors import InputError
from etude.recipe.toml import toml_text
from etude.records.events import Evaluation
from etude.report.history import metric_value
from etude.sweep.cells import Cell
from etude.sweep.deliverables import Deliverables
from etude.sweep.grid import Study
from etude.sweep.schema import Range
from etude.sweep.search import fits, load_optuna, space_of
from etude.text import shorten

_FAILED = ("failed", "damaged")
_MARK = "sweep"  # an attribute of the studies that a report wrote
_CONNECT_SECONDS = 10
_LIMITS = "-c statement_timeout=30s"


def studies_file(made: Deliverables) -> bytes:
    """An SQLite file with a study for each search, named `SWEEP SEARCH`.

    Trials that ended have their value and their evaluations by step. One that was left at a rung is pruned,
    with its value there. Any other has no value: it failed, is trained now, or waits, as one that was stopped
    or killed does until the same command goes on. Those outside the ranges of the file are left out.
    """
    optuna = load_optuna()
    storage = optuna.storages.RDBStorage("sqlite:///:memory:")  # one connection, that of this thread
    try:
        for study in made.sweep.studies:
            _add(optuna, storage, made, study)
        with contextlib.closing(storage.engine.raw_connection()) as connection:
            return bytes(connection.driver_connection.serialize())
    finally:
        storage.engine.dispose()


def copy_studies(made: Deliverables, url: str) -> None:
    """Put the same studies into a PostgreSQL database, in place of those of an earlier report.

    Raises: InputError if the database does not take them, or has studies of these names that no report wrote.
    """
    optuna = load_optuna()
    try:
        from psycopg import Error
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise InputError('search.storage needs psycopg; pip install "etude-workbench[postgresql]"') from None
    try:
        storage = optuna.storages.RDBStorage(
            url.replace("postgresql:", "postgresql+psycopg:", 1),
            engine_kwargs={"connect_args": {"connect_timeout": _CONNECT_SECONDS, "options": _LIMITS}},
        )
        try:
            for study in made.sweep.studies:
                _remove(optuna, storage, made, study, url)
                _add(optuna, storage, made, study)
        finally:
            storage.engine.dispose()
    except (Error, SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        said = shorten(str(error.__cause__ or error).partition("\n")[0])
        raise InputError(
            f"{url} took no copy of the searches: {said}; see to it, and a report writes it again"
        ) from None


def _remove(optuna: Any, storage: Any, made: Deliverables, study: Study, url: str) -> None:
    """Remove a study that an earlier report wrote. Raises: InputError if it is another one."""
    name = _name(made, study)
    if name not in optuna.get_all_study_names(storage):
        return
    old = optuna.load_study(study_name=name, storage=storage)
    if _MARK not in old.user_attrs and old.trials:
        raise InputError(f"{url} has a study {name!r} that no sweep wrote; rename the sweep")
    optuna.delete_study(study_name=name, storage=storage)


def _name(made: Deliverables, study: Study) -> str:
    return f"{made.sweep.file.name} {study.name}"


def _add(optuna: Any, storage: Any, made: Deliverables, study: Study) -> None:
    """Add a search with its trials to a storage."""
    cells = [cell for cell in made.cells if cell.trial.study == study.name]
    lower = bool(cells) and cells[0].metric.lower_is_better
    copy = optuna.create_study(
        study_name=_name(made, study), storage=storage, direction="minimize" if lower else "maximize"
    )
    copy.set_user_attr(_MARK, made.sweep.file.name)
    copy.add_trials([_trial(optuna, study, each) for each in cells if fits(study, each.trial.values)])


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
    return states.RUNNING if cell.state == "running" else states.WAITING


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
