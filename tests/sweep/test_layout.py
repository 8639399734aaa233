"""The layout of trials: lengths are columns, and a value has the short name of its key."""

from etude.sweep.cells import Cell
from etude.sweep.layout import layout, values_text
from tests.sweep.journals import sweep_trials


def test_a_matrix_has_the_horizon_as_its_columns() -> None:
    cells = [Cell(trial) for trial in sweep_trials()]
    rows, columns, grid = layout(cells)
    assert rows == ["lr 0.001", "lr 0.003"] and columns == ["steps 60", "steps 100"] and len(grid) == 4
    assert values_text(grid["lr 0.003", "steps 100"]) == "lr 0.003, steps 100"
