"""Rows from named values."""

from etude.watch.logs.named import row_of


def test_numbers_are_kept_and_words_and_lists_left_out() -> None:
    row = row_of({"loss": "2.5", "note": "ok", "lr": [0.1], "epoch": None, "step": 3})
    assert row.figures == {"loss": 2.5, "step": 3.0} and row.run == ""


def test_a_word_for_an_evaluation_names_the_figures_and_leaves_their_place() -> None:
    row = row_of({"phase": "valid", "step": 3, "loss": 2.5, "epoch": 1, "val_acc": 0.5})
    assert row.figures == {"step": 3.0, "eval/loss": 2.5, "epoch": 1.0, "val_acc": 0.5}
    assert row_of({"phase": "train", "loss": 2.5}).figures == {"loss": 2.5}


def test_a_value_has_the_name_beside_it_and_a_row_the_run() -> None:
    row = row_of({"metric": "eval/loss", "value": 2.5, "step": 3, "run": "a"})
    assert row.figures == {"step": 3.0, "eval/loss": 2.5} and row.run == "a"


def test_objects_in_objects_are_named_by_both_and_deep_ones_left_out() -> None:
    deep: dict[str, object] = {"loss": 1.0}
    for _ in range(100):
        deep = {"a": deep}
    assert row_of({"train": {"loss": 2.5}, **deep}).figures == {"train/loss": 2.5}
