import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError, MissingError
from etude.ui import readings
from etude.ui.library import Library
from etude.ui.programs import Programs
from etude.ui.side_by_side import compare
from tests.conftest import Outcome
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


def test_a_comparison_is_that_of_the_command(
    tmp_path: Path, etude: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = finished_run(tmp_path), finished_run(tmp_path, {"optim.learning_rate": 1e-3})
    told = json.loads(etude("compare", two.path, "--baseline", one.path, "--json").out)
    ids = [one.info["id"], two.info["id"]]
    found = compare(Library([tmp_path]), Programs(), ids)
    assert {name: found[name] for name in told if name != "table"} == {
        name: value for name, value in told.items() if name != "table"
    }
    assert found["rows"] == told["table"]
    assert found["ids"] == ids
    assert "peak" in found["keys"]["optim.learning_rate"]["why"]
    monkeypatch.setattr(readings, "_LARGE", 0)
    assert compare(Library([tmp_path]), Programs(), ids) == found


def test_cells_are_those_of_the_runs_of_their_column(tmp_path: Path) -> None:
    writer = new_run(tmp_path, {"optim.learning_rate": 1e-2})
    writer.append(attempt(), *window(1, 10), evaluation(10, 1.0))
    writer.close("stopped")
    runs = [writer.run, finished_run(tmp_path, {"optim.learning_rate": 1e-3})]
    orders = set()
    for given in (runs, runs[::-1]):
        found = compare(Library([tmp_path]), Programs(), [run.info["id"] for run in given])
        columns = [given[column["runs"][0]] for column in found["columns"]]
        rows = {name.strip(): cells for name, *cells in found["rows"]}
        assert rows["status"] == [run.state for run in columns]
        assert rows["optim.learning_rate"] == [str(run.recipe.optim.learning_rate) for run in columns]
        orders.add(columns == given)
    assert orders == {True, False}  # the columns have an order of their own


def test_the_baseline_joins_the_runs(tmp_path: Path) -> None:
    one, two = finished_run(tmp_path), finished_run(tmp_path)
    found = compare(Library([tmp_path]), Programs(), [one.info["id"]], two.info["id"])
    assert (found["ids"], found["baseline"], found["place"]) == (
        [one.info["id"], two.info["id"]], two.name, 1
    )  # fmt: skip


def test_one_run_or_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path).info["id"]
    with pytest.raises(InputError, match="from 2 to"):
        compare(Library([tmp_path]), Programs(), [run, run])
    with pytest.raises(MissingError):
        compare(Library([tmp_path]), Programs(), [run, "no"])
