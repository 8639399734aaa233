"""An axis has one reason for all its values or one for each, and keys that go together have values that do."""

import pytest
from pydantic import ValidationError

from etude.sweep.schema import Axis, Budget, Range


def test_an_axis_of_one_key_has_a_point_for_each_value_and_its_reason() -> None:
    axis = Axis(key="train.epochs", values=[3, 5], why=["short", "long"])
    assert axis.points == [(3,), (5,)] and axis.keys == ["train.epochs"]
    assert [axis.reason(index) for index in range(2)] == ["short", "long"]


def test_keys_that_go_together_are_one_axis() -> None:
    keys = ["train.micro_batch_size", "train.accumulation"]
    axis = Axis(key=keys, values=[[8, 1], [4, 2]], why="16 rows a step either way")
    assert axis.points == [(8, 1), (4, 2)] and axis.keys == keys
    assert axis.reason(1) == "16 rows a step either way"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"key": "seed", "values": [1, 2], "why": ["one"]}, "2 values and 1 reasons"),
        ({"key": ["seed", "train.epochs"], "values": [[1, 2], [1]]}, "a list of 2"),
        ({"key": "seed", "values": []}, "at least 1 item"),
    ],
)
def test_an_axis_that_does_not_fit_together_is_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Axis.model_validate(values)


def test_a_budget_is_the_least_of_its_hours_and_its_price() -> None:
    assert Budget().seconds is None and Budget(device_hours=2.0).seconds == 7200
    assert Budget(device_hours=2.0, price=5.0, price_per_hour=5.0).seconds == 3600
    with pytest.raises(ValidationError, match="price is given without price_per_hour"):
        Budget(price=5.0)


@pytest.mark.parametrize(("low", "high"), [(10**400, 1), (1, 10**400), (-(2**60), 1)])
def test_a_whole_number_that_no_fraction_holds_is_no_end_of_a_range(low: int, high: int) -> None:
    with pytest.raises(ValidationError, match="a whole number beyond 9,007,199,254,740,992"):
        Range(key="train.steps", low=low, high=high)
