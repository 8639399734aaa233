import json
from collections.abc import Callable
from pathlib import Path

from etude.records.store import Run
from etude.ui.data import data_page, tables_of
from etude.ui.library import Library
from etude.ui.programs import Programs
from etude.ui.readings import Readings
from tests.conftest import Outcome
from tests.report.runs import finished_run


def test_the_data_page_has_counts_and_the_samples_of_data_show(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Callable[..., Outcome]
) -> None:
    recipe = write_recipe({"train.steps": 2})
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0
    (run,) = Library([tmp_path / "runs"]).runs().values()
    page = data_page(Readings(), Programs(), run)
    assert page["problem"] is None
    assert page["samples"] == json.loads(etude("data", "show", recipe, "--rows", 6, "--json").out)
    assert {part["scored"] for part in page["samples"][0]["parts"]} == {True, False}
    assert "sources" in [each["title"] for each in page["tables"]]
    splits = next(each for each in page["tables"] if "targets" in each["columns"])
    assert splits["rows"][0][0] == "train"
    counts = data_page(Readings(), Programs(), run, rows=0)
    assert counts["tables"] == page["tables"] and counts["samples"] == []
    thorough = data_page(Readings(), Programs(), run, thorough=True)
    assert thorough["problem"] is None
    assert thorough["samples"] == page["samples"]


def test_data_that_are_gone_are_told_from_the_record(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"data.train.0": {"path": str(tmp_path / "gone.jsonl")}})
    page = data_page(Readings(), Programs(), Run(run.path))
    assert "gone.jsonl" in page["problem"]
    assert page["samples"] == []
    assert page["tables"][-1]["rows"] == [["a", "12,345"]]


def test_lists_of_counts_keep_their_examples() -> None:
    summary = {"removed": [{"why": "duplicate", "documents": 3, "share": 0.5, "examples": ["<b>x</b>"]}]}
    assert tables_of(summary) == [{
        "name": "removed", "title": "removed", "columns": ["why", "documents", "share"],
        "rows": [["duplicate", "3", "50.0 %"]], "examples": ["<b>x</b>"],
    }]  # fmt: skip
