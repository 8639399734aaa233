"""Rungs: a trial goes on once it is among the best share of those that came so far, and never comes back."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import RecipeError
from etude.sweep.grid import load_sweep
from etude.sweep.rungs import Rung, foresee_range
from tests.sweeps import sweep_values, write_sweep


def come(rung: Rung, values: list[float]) -> list[list[str]]:
    return [rung.add(str(place), value) for place, value in enumerate(values)]


def test_a_trial_goes_on_as_in_the_published_rule() -> None:
    # By hand, for a factor of 3: the third makes room for one, the sixth for two, the best of all so far.
    rung = Rung(3)
    assert come(rung, [0.5, 0.7, 0.6, 0.9, 0.8, 0.1]) == [[], [], ["1"], ["3"], [], ["4"]]
    assert rung.gone_on == {"1", "3", "4"} and [rung.rank(str(each)) for each in (3, 4, 1, 2)] == [1, 2, 3, 4]
    assert rung.best_left() == "2"


@given(st.lists(st.floats(-1, 1), max_size=40), st.integers(2, 5))
def test_those_that_went_on_are_all_that_were_ever_among_the_best(values: list[float], factor: int) -> None:
    rung = Rung(factor)
    went = [name for names in come(rung, values) for name in names]
    expected: set[str] = set()
    for count in range(1, len(values) + 1):
        order = sorted(range(count), key=lambda place: (-values[place], place))
        expected |= {str(place) for place in order[: count // factor]}
    assert rung.gone_on == expected and sorted(went) == sorted(expected)
    assert len(expected) >= len(values) // factor


def test_a_trial_without_a_figure_never_goes_on() -> None:
    rung = Rung(2)
    assert come(rung, [math.nan, -math.inf]) == [[], []] and rung.add("none", None) == []
    assert rung.best_left() is None and len(rung) == 3


def test_the_foreseen_cost_lies_between_the_best_order_and_no_halving() -> None:
    trials = [[1.0, 2.0, 6.0]] * 27
    low, high = foresee_range([trials], 3)
    assert 27 * 1 + 9 * 2 + 3 * 6 <= low < high < 27 * 9
    assert foresee_range([trials], 3) == (low, high)
    assert foresee_range([[[1.0, 2.0]] * 2], 3) == (4.0, 4.0)  # too few to compare: the best one goes on
    double = foresee_range([trials, trials], 3)
    assert 2 * low - 10 <= double[0] < double[1] <= 2 * high + 10


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "neither": ({}, {}, "give epochs or steps"),
    "both": ({"epochs": [1], "steps": [4]}, {}, "give epochs or steps"),
    "descending": ({"steps": [8, 4]}, {}, "the lowest first"),
    "zero": ({"steps": [0]}, {}, "halving.steps"),
    "factor": ({"steps": [4], "reduction_factor": 1}, {}, "halving.reduction_factor"),
    "beyond": ({"steps": [4, 12]}, {}, "has a rung at 12, and train.steps is 12"),
    "unit": ({"epochs": [1]}, {}, "the length is train.steps; give halving.steps"),
    "between": ({"steps": [4, 6]}, {}, "rung at 6, where nothing is evaluated; evaluate.every_steps is 4"),
    "by epochs": (
        {"steps": [4]}, {"evaluate": {"every_epochs": 1}}, "needs evaluations at its rungs; give evaluate.every_"
    ),
    "unmeasured": ({"steps": [4]}, {"data.validation": "none"}, "data.validation is none"),
    "devices": ({"steps": [4]}, {"train.devices": 2}, "train.devices is 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_rungs_are_refused_with_their_key(tmp_path: Path, corpus: Path, case: str) -> None:
    halving, changes, text = CASES[case]
    values = sweep_values(corpus, {"optim.learning_rate": [1e-3, 1e-2]}, {"train.steps": 12, **changes})
    with pytest.raises(RecipeError) as caught:
        load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "halving": halving}))
    assert any(text in problem for problem in caught.value.problems), caught.value.problems
    assert all("\n" not in problem and "sweep.toml:" in problem for problem in caught.value.problems)


def test_a_model_needs_several_trials_with_one_metric(tmp_path: Path, corpus: Path) -> None:
    halving = {"steps": [4]}
    values = sweep_values(corpus, {}, {"train.steps": 12})
    with pytest.raises(RecipeError, match="compares trials of a model, and net has 1"):
        load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "halving": halving}))
    values = sweep_values(corpus, {"evaluate.metric": ["loss", "perplexity"]}, {"train.steps": 12})
    with pytest.raises(RecipeError, match=r"evaluate.metric of net is loss and perplexity"):
        load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "halving": halving}))
    values = sweep_values(corpus, {"data.validation_ratio": [0.1, 0.2]}, {"train.steps": 12})
    with pytest.raises(RecipeError, match=r"data.validation_ratio of net is 0.1 and 0.2; keep one"):
        load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "halving": halving}))


def test_rungs_in_epochs_are_steps_of_each_trial(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.global_batch_size": [2, 4]}, {"train.epochs": 4})
    del values["recipe"]["train"]["steps"], values["recipe"]["evaluate"]["every_steps"]
    values["halving"] = {"epochs": [1, 2]}
    trials = load_sweep(write_sweep(tmp_path / "sweep.toml", values)).trials
    assert [trial.rungs(10) for trial in trials] == [[10, 20], [10, 20]] and trials[0].rungs(5) == [5, 10]
