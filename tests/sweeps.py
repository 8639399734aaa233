"""Small sweeps for tests: a base recipe, grids, and sweep files made of them."""

from pathlib import Path
from typing import Any

import tomlkit

from etude.recipe.load import change
from tests.recipes import tiny

Axes = dict[str, list[Any]]


def sweep_values(corpus: Path, grid: Axes, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The values of a sweep of one tiny model over a grid, its best trained once.

    `changes` are of its base recipe.
    """
    base = tiny(corpus, {"evaluate.every_steps": 4, **(changes or {})})
    del base["name"]
    axes = [{"key": key, "values": values} for key, values in grid.items()]
    tier = {"name": "tiny", "models": [{"name": "net"}], "grid": axes}
    return {"name": "tiny-sweep", "recipe": base, "tiers": [tier], "repeats": {"seeds": 0}}


def write_sweep(path: Path, values: dict[str, Any], changes: dict[str, Any] | None = None) -> Path:
    """A sweep file of values with dotted changes."""
    path.write_text(tomlkit.dumps(change(values, changes or {})), encoding="utf-8")
    return path
