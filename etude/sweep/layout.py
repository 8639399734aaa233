"""The point of the grid of a trial in words, and the trials of a model as a matrix."""

from collections.abc import Sequence

from etude.report.wording import setting
from etude.sweep.cells import Cell

_HORIZON = ("train.epochs", "train.steps")
_SHORT = {"learning_rate": "lr", "global_batch_size": "batch", "micro_batch_size": "micro-batch"}


def values_text(cell: Cell) -> str:
    """The point of the grid in short, as `lr 2e-05, batch 16, epochs 5`."""
    return ", ".join(f"{key_title(key)} {setting(value)}" for key, value in cell.trial.values.items())


def key_title(key: str) -> str:
    """The last part of a key, in short."""
    last = key.rpartition(".")[2]
    return _SHORT.get(last, last.replace("_", " "))


def horizon_of(keys: Sequence[str]) -> str | None:
    """The key whose values are the columns of a matrix: that of the length, else the last of the grid."""
    return next((key for key in keys if key in _HORIZON), keys[-1] if keys else None)


def layout(cells: Sequence[Cell]) -> tuple[list[str], list[str], dict[tuple[str, str], Cell]]:
    """Titles of the rows and columns of a matrix of cells, and the cell of each pair that there is."""
    keys = [list(cell.trial.values) for cell in cells if not cell.trial.study]
    across = horizon_of(keys[0] if keys else [])
    grid: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        values = cell.trial.values
        row = ", ".join(
            f"{key_title(key)} {setting(value)}" for key, value in values.items() if key != across
        )
        column = f"{key_title(across)} {setting(values[across])}" if across and across in values else ""
        grid[row, column] = cell
    rows, columns = (list(dict.fromkeys(key[place] for key in grid)) for place in (0, 1))
    return rows, columns, grid
