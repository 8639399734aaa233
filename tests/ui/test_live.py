"""Figures of a run that goes on follow its last records, and are those that a summary has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.records.store import RunWriter
from etude.report.summary import summarize
from etude.ui.columns import open_columns
from etude.ui.library import Library
from etude.ui.live import live_figures
from etude.ui.page import run_page
from etude.ui.readings import Readings
from tests.report.runs import attempt, evaluation, new_run, window


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWriter]:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    found = new_run(tmp_path / "runs")
    found.append(attempt(), *window(1, 10), evaluation(10, 2.5))
    yield found
    found.close("stopped")


def test_they_are_those_of_a_summary_with_skipped_steps_too(writer: RunWriter) -> None:
    for more in ((), window(11, 20, bad=(13,)), (*window(21, 24), evaluation(24, 2.25)), window(25, 31)):
        writer.append(*more)
        columns = open_columns(writer.run)
        columns.update()
        found, summary = live_figures(columns), summarize(writer.run)
        assert found.keys() == {
            "step", "last_loss", "loss_window", "gap", "tokens_per_second", "training_seconds",
        }  # fmt: skip
        for name, value in found.items():
            assert value == pytest.approx(summary[name], rel=1e-12), name


def test_the_page_of_a_run_follows_its_steps_while_its_other_figures_rest(writer: RunWriter) -> None:
    readings, library = Readings(), Library([writer.run.path.parent])
    identity = writer.run.info["id"]
    first = run_page(library, readings, identity)
    assert first["summary"]["step"] == 10
    readings._is_due = lambda path, key: False  # type: ignore[method-assign]
    writer.append(*window(11, 20), evaluation(20, 2.25))
    page = run_page(library, readings, identity)
    then, told = page["summary"], summarize(writer.run)
    assert then["step"] == 20
    assert then["last_loss"] == pytest.approx(told["last_loss"]) != first["summary"]["last_loss"]
    assert then["tokens"] == first["summary"]["tokens"]
    for name in ("metric_best", "best_validation_loss", "epochs", "loss_window", "training_seconds", "end"):
        assert then[name] == told[name] != first["summary"][name], name
    rows = dict(page["rows"])
    assert rows["verdict"] == "Running at step 20 of 40."  # as the head, which shows the same summary
    assert rows["lowest validation loss"].startswith("2.2500") and page["best"]["value"] == 2.25
    assert then["wall_seconds"] >= told["wall_seconds"] - 5.0  # a heartbeat


def test_without_a_step_there_are_none(tmp_path: Path) -> None:
    other = new_run(tmp_path / "other")
    columns = open_columns(other.run)
    columns.update()
    assert live_figures(columns) == {}
    other.close("stopped")
