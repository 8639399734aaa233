"""One yardstick for all runs of a case: the finished model on the held-out rows of the healthy twin.

Losses that runs measure themselves do not compare where one reads longer samples, drops rows or holds out
others. So the last weights of each are scored on the same rows under the settings of the healthy recipe, and
the difference to the twin is taken row by row. Its standard error has two parts: that of the paired
difference over rows, and the scatter of healthy twins of several seeds, as two healthy runs differ too.
"""

import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etude.errors import EtudeError
from etude.recipe.schema import Recipe
from etude.records.folder import list_checkpoints
from etude.records.store import Run
from etude.rescore import _recipe_on, _score

Parts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Yardstick:
    """The healthy twin: its recipe, and its losses by row.

    twins    (runs, rows) sums of losses in nats, of several seeds
    targets  (rows,) that the sums are over
    """

    recipe: Recipe
    twins: Parts
    targets: Parts

    @property
    def loss(self) -> float:
        return float(self.twins.mean(0).sum() / self.targets.sum())

    @property
    def scatter(self) -> float:
        """Standard deviation of the loss of a healthy run from seed to seed."""
        return statistics.stdev(float(each) for each in self.twins.sum(1) / self.targets.sum())

    def measure(self, run: Run) -> Parts | None:
        """Sums of losses (rows,) of the last weights of a run; None if it has none, or cannot read the rows."""
        return losses_of(run, self.recipe)

    def distance(self, losses: Parts | None) -> tuple[float, float]:
        """The loss less that of the twins, in nats and in standard errors."""
        if losses is None:
            return math.inf, math.inf
        more = losses - self.twins.mean(0)
        mean = float(more.sum() / self.targets.sum())
        rest = more - mean * self.targets
        rows = len(rest)
        paired = math.sqrt(rows / (rows - 1) * float((rest**2).sum())) / float(self.targets.sum())
        seeds = self.scatter * math.sqrt(1 + 1 / len(self.twins))
        return mean, mean / math.hypot(paired, seeds)


def losses_of(run: Run, recipe: Recipe) -> Parts | None:
    measured = measure(run, recipe)
    return None if measured is None else measured[0]


def measure(run: Run, recipe: Recipe) -> tuple[Parts, Parts] | None:
    """Sums of losses and numbers of targets (rows,) on the validation rows of a recipe; None if none is finite."""
    folders = list_checkpoints(run.checkpoints)
    sources = recipe.data.validation
    assert isinstance(sources, list) and sources[0].path
    if not folders:
        return None
    length = recipe.train.seq_len
    if recipe.kind.has_labels:  # a model that reads less of a text answers all the same
        length = min(length, run.recipe.train.seq_len)
    on = _recipe_on(recipe, Path(sources[0].path), folders[-1], length, 0)
    try:
        parts = _score(run.name, folders[-1], on).parts
    except EtudeError:
        return None
    if not np.isfinite(parts[:, 0]).all():
        return None
    return parts[:, 0], parts[:, 1]


def keep(file: Path, twins: Parts, targets: Parts) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"twins": twins.tolist(), "targets": targets.tolist()}))


def kept(file: Path) -> tuple[Parts, Parts] | None:
    if not file.exists():
        return None
    values = json.loads(file.read_text())
    return np.array(values["twins"]), np.array(values["targets"])
