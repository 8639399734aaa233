"""The choice among the names of a log."""

import pytest

from etude.errors import InputError
from etude.watch.logs.rows import Row, choose, keep


def log(**counts: int) -> list[Row]:
    """Rows of which so many have each name."""
    most = max(counts.values())
    return [
        Row({name.replace("__", "/"): 1.0 for name, count in counts.items() if count > row})
        for row in range(most)
    ]


@pytest.mark.parametrize(
    ("counts", "loss"),
    [
        ({"train_loss_epoch": 5, "train_loss_step": 100}, "train_loss_step"),
        ({"train_loss_epoch": 5}, "train_loss_epoch"),
        ({"loss": 100, "avg_loss": 100}, "loss"),
        ({"loss": 10, "avg_loss": 100}, "avg_loss"),
        ({"train loss": 10, "loss": 100, "val loss": 10}, "loss"),
    ],
)
def test_of_several_losses_that_of_the_steps_is_chosen(counts: dict[str, int], loss: str) -> None:
    assert choose(log(**counts)).names["loss"] == loss


def test_of_validation_losses_the_plain_one_is_chosen_even_if_others_are_more_frequent() -> None:
    names = choose(log(val_loss_step=100, val_loss=10, eval_code_loss=10, test_loss=10, loss=5)).names
    assert names["eval_loss"] == "val_loss"
    assert choose(log(eval_code_loss=10, loss=5)).names["eval_loss"] == "eval_code_loss"
    assert choose(log(test_loss=10, loss=5)).names["eval_loss"] == "test_loss"


def test_steps_of_the_run_go_before_counts_of_rows() -> None:
    assert choose(log(_step=10, train__global_step=10, loss=10)).names["step"] == "train/global_step"
    assert choose(log(_step=10, loss=10)).names["step"] == "_step"


def test_the_closing_summary_is_left_out_and_alone_it_is_no_log() -> None:
    summary = Row({"train_runtime": 9.0, "train_loss": 2.0, "step": 10})
    assert keep([Row({"step": 1.0, "loss": 2.5}), summary, Row({})]) == [Row({"step": 1.0, "loss": 2.5})]
    with pytest.raises(InputError, match="only the closing summary"):
        keep([summary])
    with pytest.raises(InputError, match="no row with figures"):
        keep([])
