"""The files of a report have the same figures, and the same bytes for the same journals."""

import json
from pathlib import Path

import pytest

from etude.sweep.cells import find_runs_of
from etude.sweep.deliverables import Deliverables, make_deliverables
from etude.sweep.grid import Sweep, load_sweep
from etude.sweep.write import write_deliverables
from tests.sweep.journals import PLAN, write_72


@pytest.fixture(scope="module")
def sweep_of_72(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    """The plan of 72 trials with runs of nearly all."""
    runs = tmp_path_factory.mktemp("runs")
    return write_72(runs), runs


def make(sweep_of_72: tuple[Sweep, Path]) -> Deliverables:
    sweep, runs = sweep_of_72
    return make_deliverables(sweep, lambda trials: find_runs_of(trials, runs))


def test_both_files_have_the_same_figures(sweep_of_72: tuple[Sweep, Path], tmp_path: Path) -> None:
    made = make(sweep_of_72)
    path = write_deliverables(made, tmp_path / "report")
    text, told = path.read_text(), json.loads((path.parent / "report.json").read_text())
    assert len(told["trials"]) == 72 and told["best"] == made.overall.best.name  # type: ignore[union-attr]
    for entry in told["trials"]:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{entry['trial']}` |")]
        assert entry["state"] in row
        if entry["is_final"]:
            assert f"{entry['value']:.4f}" in row and entry["sources"]["metric_best"][0].startswith(
                "evaluation"
            )
    charts = {each.name for each in path.parent.glob("*.svg")}
    assert charts == {*(f"heat-{n}.svg" for n in range(1, 7)), "parallel.svg", "cost.svg", "convergence.svg"}
    assert all(name in text for name in charts)


@pytest.mark.usefixtures("drawn")
def test_the_same_journals_give_the_same_bytes(sweep_of_72: tuple[Sweep, Path], tmp_path: Path) -> None:
    paths = [write_deliverables(make(sweep_of_72), tmp_path / name) for name in "ab"]
    for name in ("report.md", "report.json", "cost.svg"):
        assert (paths[0].parent / name).read_bytes() == (paths[1].parent / name).read_bytes()


def test_a_sweep_without_a_run_is_told_as_that(tmp_path: Path) -> None:
    made = make_deliverables(load_sweep(PLAN), lambda trials: dict.fromkeys(each.name for each in trials))
    text = write_deliverables(made, tmp_path / "report").read_text()
    assert "72 trials: 72 missing" in text and "No trial has ended yet" in text
    assert not list((tmp_path / "report").glob("*.svg")) and made.shrinkage is None
