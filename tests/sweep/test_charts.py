"""Charts of a sweep show each trial with its state, in files that a browser reads."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from etude.sweep.cells import find_runs_of
from etude.sweep.charts import sweep_charts
from etude.sweep.deliverables import make_deliverables
from etude.sweep.grid import Sweep
from etude.sweep.schema import SweepFile
from tests.sweep import journals
from tests.sweep.journals import Course, sweep_trials, write_trial

pytestmark = pytest.mark.usefixtures("drawn")


def test_charts_hold_the_values_the_states_and_the_models(tmp_path: Path) -> None:
    trials = sweep_trials(["a", "b"])
    for trial, course in zip(
        trials, [Course(60, skill=0.8), Course(100, ends=70, action="fail"), Course(60)]
    ):
        write_trial(tmp_path, trial, course)
    write_trial(tmp_path, trials[4], Course(60, skill=0.5, seconds=0.2))
    file = {"name": "s", "recipe": {}, "tiers": [{"name": "t", "models": [{"name": "a"}]}]}
    sweep = Sweep(SweepFile.model_validate(file), tuple(trials), "", "")
    made = make_deliverables(sweep, lambda wanted: find_runs_of(wanted, tmp_path))
    charts = {name: svg.decode() for name, svg in sweep_charts(made).items()}
    assert charts.keys() == {"heat-1.svg", "heat-2.svg", "parallel.svg", "cost.svg", "convergence.svg"}
    for svg in charts.values():
        ET.fromstring(svg)
    best = made.standings["a"].best
    assert best is not None and f"{best.value:.4f}" in charts["heat-1.svg"]
    assert "failed" in charts["heat-1.svg"] and "missing" in charts["heat-1.svg"]
    assert (
        "Pareto front" in charts["cost.svg"] and "training time to convergence" in charts["convergence.svg"]
    )


def test_trials_of_one_value_have_a_plain_scale(tmp_path: Path) -> None:
    trials = sweep_trials(["a"])
    for trial in trials:
        write_trial(tmp_path, trial, Course(60, skill=0.8))
    file = {"name": "s", "recipe": {}, "tiers": [{"name": "t", "models": [{"name": "a"}]}]}
    made = make_deliverables(
        Sweep(SweepFile.model_validate(file), tuple(trials), "", ""),
        lambda wanted: find_runs_of(wanted, tmp_path),
    )
    assert len({cell.value for cell in made.cells}) == 1
    assert "1e" not in "".join(re.findall(r"<!-- (.*?) -->", sweep_charts(made)["heat-1.svg"].decode()))


def test_a_score_that_none_can_be_is_damage_and_has_no_place_in_a_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = sweep_trials(["a"])
    f1 = iter([0.8, 1e308, -1e308])
    for trial in trials:
        value = next(f1, 0.6)
        monkeypatch.setattr(journals, "f1_of", lambda course, rows=200, value=value: value)
        write_trial(tmp_path, trial, Course(60))
    file = {"name": "s", "recipe": {}, "tiers": [{"name": "t", "models": [{"name": "a"}]}]}
    sweep = Sweep(SweepFile.model_validate(file), tuple(trials), "", "")
    made = make_deliverables(sweep, lambda wanted: find_runs_of(wanted, tmp_path))
    assert {cell.value for cell in made.cells} <= {0.8, 0.6, None}
    assert {"heat-1.svg", "parallel.svg", "cost.svg"} <= sweep_charts(made).keys()


def test_a_sweep_without_values_has_no_chart() -> None:
    file = {"name": "s", "recipe": {}, "tiers": [{"name": "t", "models": [{"name": "a"}]}]}
    sweep = Sweep(SweepFile.model_validate(file), tuple(sweep_trials()), "", "")
    made = make_deliverables(sweep, lambda wanted: dict.fromkeys(each.name for each in wanted))
    assert sweep_charts(made) == {}
