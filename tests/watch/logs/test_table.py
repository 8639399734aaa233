"""Tables, beyond those of the corpus."""

import pytest

from etude.errors import InputError
from etude.watch.logs.table import read_table


def rows(text: str) -> list[dict[str, float]]:
    source = read_table(text)
    return [] if source is None else [dict(row.figures) for row in source.rows]


def test_lines_before_the_header_and_cells_that_are_missing_or_too_many_cost_no_row() -> None:
    text = "started on host\nargs: x\nstep,loss,lr\n1,3.0\n2,2.5,0.1,9\n3,,0.1\n"
    assert rows(text) == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.5, "lr": 0.1},
        {"step": 3, "lr": 0.1},
    ]


def test_a_header_that_comes_again_with_more_names_holds_from_there() -> None:
    assert rows("step,loss\n1,3.0\nstep,val_loss,loss\n2,2.75,2.5\n") == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "val_loss": 2.75, "loss": 2.5},
    ]


def test_a_comma_parts_thousands_where_points_are_decimal_and_is_decimal_where_none_are() -> None:
    assert rows("step;loss\n1,000;2.5\n") == [{"step": 1000.0, "loss": 2.5}]
    assert rows("step;loss\n1000;2,5\n") == [{"step": 1000.0, "loss": 2.5}]


def test_one_column_and_text_without_a_table() -> None:
    with pytest.raises(InputError, match="one column, val_loss"):
        read_table("val_loss\n2.5\n")
    assert read_table("loss is what we minimise, step by step\nand so on\n") is None
    assert read_table("x" * 200_000) is None


def test_a_cell_without_an_end_ends_the_table() -> None:
    assert rows('step,loss\n1,2.5\n2,"' + "\n".join("x" * 60_000 for _ in range(4))) == [
        {"step": 1, "loss": 2.5}
    ]
