import math

from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.judge import Judge
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Evaluate


@given(st.lists(st.floats(-10, 10), min_size=1))
def test_the_best_is_the_lowest_loss_and_the_highest_of_other_metrics(values: list[float]) -> None:
    for metric, choose in (("loss", min), ("accuracy", max)):
        judge = Judge(Evaluate(metric=metric), ChosenMetric.parse(metric))
        for step, value in enumerate(values):
            judge.judge(value, step)
        assert judge.best is not None
        assert judge.best["value"] == choose(values) and judge.best["step"] == values.index(choose(values))


def test_patience_counts_evaluations_whose_gain_is_too_small() -> None:
    judge = Judge(Evaluate(min_improvement=0.1), ChosenMetric.parse("loss"))
    stops = []
    for step, loss in enumerate([3.0, 2.95, 2.5, 2.45, 2.44]):
        judge.judge(loss, step)
        stops.append(judge.why_stop(2))
    assert stops == [None, None, None, None, "no improvement in 2 evaluations"]
    assert judge.best is not None and judge.best["step"] == 4


def test_small_gains_add_up_for_patience_and_each_is_the_best() -> None:
    """A slow fall of the loss, in steps that are each below the least improvement, ends no run."""
    judge = Judge(Evaluate(min_improvement=0.1), ChosenMetric.parse("loss"))
    losses = [3.0 - 0.04 * at for at in range(30)]
    for step, loss in enumerate(losses):
        assert judge.judge(loss, step) and judge.why_stop(3) is None
    assert judge.best is not None and judge.best["value"] == losses[-1]
    stops = []
    for step, loss in enumerate([losses[-1] - 0.01, losses[-1] + 0.1, losses[-1]], 30):
        judge.judge(loss, step)
        stops.append(judge.why_stop(3))
    assert stops[-1] == "no improvement in 3 evaluations"


def test_a_judge_of_an_older_checkpoint_goes_on_from_its_best() -> None:
    judge = Judge(Evaluate(min_improvement=0.1), ChosenMetric.parse("loss"))
    judge.best = {"checkpoint": "step-000001", "metric": "loss", "value": 2.0, "step": 1}
    judge.evaluations_without_improvement = 1
    assert judge.judge(1.95, 2) and judge.why_stop(2) is not None
    assert judge.judge(1.89, 3) and judge.why_stop(2) is None


def test_nan_is_never_the_best() -> None:
    judge = Judge(Evaluate(), ChosenMetric.parse("loss"))
    assert not judge.judge(math.nan, 1)
    assert judge.judge(5.0, 2) and not judge.judge(math.nan, 3)
    assert judge.best is not None and judge.best["step"] == 2
