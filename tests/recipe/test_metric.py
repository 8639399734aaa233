import pytest

from etude.recipe.metric import ChosenMetric


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("f1", ("", "f1", False)), ("kinds:f1", ("kinds", "f1", False)), ("loss", ("", "loss", True)),
        ("a:loss", ("a", "loss", True)), ("repetition", ("", "repetition", True)),
    ],
)  # fmt: skip
def test_a_metric_is_a_task_a_name_and_a_direction_and_spelled_as_before(
    text: str, parts: tuple[str, str, bool]
) -> None:
    metric = ChosenMetric.parse(text)
    assert (metric.task, metric.name, metric.lower_is_better) == parts
    assert str(metric) == text


def test_a_gain_is_positive_where_a_value_is_better() -> None:
    assert ChosenMetric.parse("f1").gain(0.75, 0.5) == 0.25
    assert ChosenMetric.parse("loss").gain(0.75, 0.5) == -0.25
