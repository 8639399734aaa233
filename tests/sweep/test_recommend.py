"""Recommendations rest on what was measured: none beaten in all is left out, none unknown is a winner."""

import itertools
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from etude.sweep.cells import Cell, read_cells
from etude.sweep.recommend import Candidate, cost_front, make_candidate, pareto_front, recommend
from etude.sweep.standing import stand
from tests.sweep.journals import Course, sweep_trials, write_trial


def candidates(runs: Path, skills: list[float]) -> list[Candidate]:
    trials = sweep_trials(["a", "b", "c"], steps=(60,))[::2]
    found = {
        trial.name: write_trial(
            runs, trial, Course(60, skill=skill, seed=place, parameters=10**6 * (place + 1))
        )
        for place, (trial, skill) in enumerate(zip(trials, skills))
    }
    cells = read_cells(trials, found)
    return [make_candidate(cell, {cell.name: 100.0 * (3 - n)}) for n, cell in enumerate(cells)]


def test_the_front_leaves_out_what_another_beats_in_all(tmp_path: Path) -> None:
    small, middle, large = candidates(tmp_path, [0.7, 0.5, 0.8])
    assert pareto_front([small, middle, large]) == [small, large]


def test_a_figure_that_is_not_known_beats_nothing(tmp_path: Path) -> None:
    small, middle, _ = candidates(tmp_path, [0.7, 0.5, 0.8])
    assert pareto_front([replace(small, parameters=None), middle]) == [
        replace(small, parameters=None),
        middle,
    ]


def test_each_need_has_the_candidate_that_is_least_there(tmp_path: Path) -> None:
    found = candidates(tmp_path, [0.5, 0.6, 0.9])
    advice = recommend(found, stand([each.cell for each in found]))
    by_need = {each.need: each.candidate.cell.trial.model for each in advice}
    assert by_need["the best metric"] == "c" and by_need["the smallest model"] == "a"
    assert by_need["the least training"] == "c" and "as good, at the least size" not in by_need
    assert "worse in the metric than c" in next(e.why for e in advice if e.need == "the smallest model")


def test_a_smaller_model_that_noise_does_not_tell_from_the_best_is_offered(tmp_path: Path) -> None:
    found = candidates(tmp_path, [0.79, 0.3, 0.8])
    best = max(found, key=lambda each: each.cell.value or 0)
    advice = recommend(found, stand([each.cell for each in found]))
    offered = [each.candidate for each in advice if each.need == "as good, at the least size"]
    assert offered == ([found[0]] if best is not found[0] else [])


def test_time_of_a_row_is_an_evaluation_over_its_rows(tmp_path: Path) -> None:
    assert candidates(tmp_path, [0.7])[0].row_seconds == 2.0 / 200


def test_a_trial_without_a_run_has_no_figures() -> None:
    made = make_candidate(Cell(sweep_trials()[0]), {})
    assert made.row_seconds is made.memory_bytes is made.weights_bytes is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_of_cost_holds_each_point_that_none_is_better_than(points: list[tuple[int, int]]) -> None:
    front = {points[place] for place in cost_front(points, 1)}
    beaten = {b for a, b in itertools.product(points, points) if a[0] <= b[0] and a[1] >= b[1] and a != b}
    assert front == set(points) - beaten
