"""The four deliverables come from journals alone, at any moment of a sweep."""

import math
from pathlib import Path

import pytest

from etude.report.figures import Source
from etude.sweep.cells import find_runs_of
from etude.sweep.deliverables import Deliverables, make_deliverables, source_text
from etude.sweep.grid import Sweep
from tests.sweep.journals import write_72


@pytest.fixture(scope="module")
def sweep_of_72(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    """The plan of 72 trials with runs of nearly all."""
    runs = tmp_path_factory.mktemp("runs")
    return write_72(runs), runs


def make(sweep_of_72: tuple[Sweep, Path]) -> Deliverables:
    sweep, runs = sweep_of_72
    return make_deliverables(sweep, lambda trials: find_runs_of(trials, runs))


def test_72_trials_have_their_states_and_their_time_adds_up(sweep_of_72: tuple[Sweep, Path]) -> None:
    made = make(sweep_of_72)
    states = [cell.state for cell in made.cells]
    assert {state: states.count(state) for state in set(states)} == {
        "finished": 68, "failed": 1, "stopped": 1, "ended early": 1, "missing": 1
    }  # fmt: skip
    assert math.fsum(made.costs.charged.values()) == pytest.approx(made.costs.measured, rel=1e-12)
    shared = [part for part in made.costs.parts if len(part.trials) > 1]
    assert len(shared) == 35 and all((part.first, part.last) == (1, 60) for part in shared)


def test_records_are_named_in_short() -> None:
    named = [source_text(Source(*each)) for each in (("step", 1, 9), ("evaluation", 4, 4), ("best.json",))]
    assert named == ["step 1 to 9", "evaluation 4", "best.json"]
