"""The winner's curse: the best of many trials again with new seeds, and how much of its lead stays."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from etude.recipe.load import values_hash, with_changes
from etude.records.store import Run
from etude.report.wording import short
from etude.scores.intervals import Difference, difference_of_means
from etude.sweep.cells import Cell, read_cells
from etude.sweep.grid import Sweep, Trial
from etude.sweep.standing import same_rows
from etude.text import plural

_SEEDS = 2**63  # below it, as in a recipe
_LONGEST_NAME = 57  # of a run without its id


@dataclass(frozen=True)
class Shrinkage:
    """The value that a trial was chosen by, beside that of the same recipe with new seeds.

    again       cells of the new trials; those that ended count
    mean        of their values; None before one has ended
    lost        by how much the chosen value is better than the mean
    noise       the same with its interval, of two seeds or more
    same_rows   False if a new seed also drew other validation rows, so that the values do not compare
    """

    chosen: Cell
    again: tuple[Cell, ...]
    mean: float | None
    deviation: float | None
    lost: float | None
    noise: Difference | None
    test_mean: float | None
    same_rows: bool | None

    @property
    def values(self) -> list[float]:
        """The values of the new trials that ended."""
        return [cell.value for cell in self.again if cell.is_final and cell.value is not None]


def plan_repeats(trial: Trial, count: int, among: Sequence[Trial] = ()) -> tuple[Trial, ...]:
    """The trials that train the recipe of a trial again, each with a seed that no trial has had.

    among: the trials that it was chosen from. Their values are a part of the choice, so none is new.
    """
    taken = {each.recipe.seed for each in (trial, *among)}
    following = (seed % _SEEDS for seed in itertools.count(trial.recipe.seed + 1))
    new = itertools.islice((seed for seed in following if seed not in taken), count)
    return tuple(_repeat(trial, seed) for seed in new)


def repeats_of(sweep: Sweep, best: str | None) -> tuple[Trial, ...]:
    """The trials that train the chosen trial of a sweep again, if it still is one of its trials."""
    chosen = next((trial for trial in sweep.trials if trial.name == best), None)
    return plan_repeats(chosen, sweep.file.repeats.seeds, sweep.trials) if chosen else ()


def measure_shrinkage(chosen: Cell, trials: Sequence[Trial], runs: Mapping[str, Run | None]) -> Shrinkage:
    """Hold the value of a trial against those of its repeats, as far as they have runs."""
    assert chosen.value is not None
    again = tuple(read_cells(trials, runs))
    ended = [cell for cell in again if cell.is_final and cell.value is not None]
    values = [cell.value for cell in ended if cell.value is not None]
    mean = statistics.fmean(values) if values else None
    sign = chosen.metric.sign
    found = difference_of_means([sign * chosen.value], [sign * value for value in values])
    tests = [cell.test[0] for cell in ended if cell.test is not None]
    return Shrinkage(
        chosen=chosen,
        again=again,
        mean=mean,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        lost=None if mean is None else chosen.metric.gain(chosen.value, mean),
        noise=found,
        test_mean=statistics.fmean(tests) if tests else None,
        same_rows=same_rows([chosen, *ended]) if ended else None,
    )


def shrinkage_text(found: Shrinkage) -> str:
    """The value of new seeds beside the one that a trial was chosen by, in words."""
    assert found.mean is not None and found.lost is not None
    spread = f" ± {short(found.deviation, 2)} (standard deviation)" if found.deviation is not None else ""
    way = "worse than" if found.lost >= 0 else "better than"
    return (
        f"chosen by {short(found.chosen.value, 4)}; mean over {plural(len(found.values), 'new seed')} "
        f"{short(found.mean, 4)}{spread}, {short(abs(found.lost), 2)} {way} the value that it was chosen by"
        f"{_noise(found)}"
    )


def _noise(found: Shrinkage) -> str:
    if found.noise is None:
        return ""
    verdict = "within" if found.noise.is_noise else "beyond"
    return f", {verdict} the noise of seeds"


def _repeat(trial: Trial, seed: int) -> Trial:
    name = f"{trial.name}-seed{seed}"
    if len(name) > _LONGEST_NAME:
        name = f"{trial.model}-{values_hash({'trial': trial.name, 'seed': seed})[:12]}"
    recipe = with_changes(trial.recipe, {"name": name, "seed": seed})
    return replace(trial, name=name, values={**trial.values, "seed": seed}, recipe=recipe, halving=None)
