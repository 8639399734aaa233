"""Every figure names its unit, its statistic, and the records that it is made of."""

import json
from pathlib import Path

from etude.records.shape import fit
from etude.report.figures import FIGURES, UNITS, Source, lowest, spread
from etude.report.history import read_history
from etude.report.summary import summarize
from tests.report.runs import evaluation, finished_run, new_run


def test_every_figure_is_listed_once_with_a_unit_that_its_value_fits(tmp_path: Path) -> None:
    for run in (finished_run(tmp_path), new_run(tmp_path).run):
        summary = summarize(run)
        assert [figure.name for figure in summary.figures] == list(FIGURES)
        for figure in summary.figures:
            assert (figure.unit, figure.statistic) == FIGURES[figure.name]
            assert fit(json.loads(json.dumps(figure.to_json())), UNITS[figure.unit]) == figure.value


def test_a_figure_can_be_computed_again_from_the_records_that_it_names(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    figures = {figure.name: figure for figure in summarize(run).figures}
    assert figures["last_loss"].source == (Source("step", 36, 40),)
    assert figures["tokens"].source == (Source("step", 1, 40),)
    assert figures["best_validation_loss"].source == (Source("evaluation", 20, 20),)
    assert figures["gap"].source == (Source("evaluation", 40, 40), Source("step", 36, 40))
    assert figures["device"].source == (Source("attempt", 1, 1),)
    steps = {step.step: step for step in read_history(run).steps}
    (source,) = figures["last_loss"].source
    assert source.first and source.last
    used = [steps[number] for number in range(source.first, source.last + 1)]
    assert figures["last_loss"].value == sum(s.loss * s.targets for s in used) / sum(s.targets for s in used)


def test_a_figure_without_records_names_none(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in summarize(new_run(tmp_path).run).figures}
    assert figures["last_loss"].value is None and figures["last_loss"].source == ()
    assert figures["tokens"].value == 0 and figures["status"].source == (Source("lease.json"),)


def test_the_lowest_evaluation_is_finite_and_of_this_training() -> None:
    before, nan, best = evaluation(0, 0.5), evaluation(5, float("nan")), evaluation(10, 1.5)
    assert lowest([before, nan, evaluation(8, 2.0), best]) is best and lowest([before, nan]) is None


def test_values_are_spread_from_the_first_to_the_last() -> None:
    assert spread(range(101), 5) == [0, 25, 50, 75, 100] and spread([1, 2], 5) == [1, 2]
