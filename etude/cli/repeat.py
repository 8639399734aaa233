"""`etude train --repeat`: a recipe with one seed after another, each a run of its own."""

import functools
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from etude.recipe.load import with_changes
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from etude.records.events import Scores
from etude.records.store import Run, find_runs
from etude.report.wording import NOTHING, number

if TYPE_CHECKING:
    from etude.start import Options


def train_seeds(
    recipe: Recipe,
    options: "Options",
    count: int,
    train: Callable[[Recipe, "Options"], Run],
    say: Callable[[str], None],
) -> list[Run]:
    """The runs of a recipe with its seed and the `count - 1` after it, each trained unless that is done.

    Of the runs of a recipe and seed the newest counts: unfinished it is continued, finished it is taken as it
    is if it was made of the same data and first weights. With `options.new` all are trained anew.
    """
    repeats = [with_changes(recipe, {"seed": recipe.seed + index}) for index in range(count)]
    # The same for every seed, and slow.
    wanted = functools.cache(lambda day: _origin_wanted(recipe, options, day))
    runs = []
    for index, repeat in enumerate(repeats):
        known = None if options.new else next(reversed(find_runs(options.runs, repeat)), None)
        is_finished = known is not None and known.lease["state"] == "finished"
        if known is not None and is_finished and _origin(known) == wanted(known.day):
            say(
                f"seed {repeat.seed}, {index + 1} of {count}: {known.name} is finished already (--new trains "
                "it again)"
            )
            runs.append(known)
            continue
        say(f"seed {repeat.seed}, {index + 1} of {count}")
        runs.append(train(repeat, replace(options, new=is_finished or options.new, resume=None)))
    return runs


def outcome_table(runs: Sequence[Run]) -> list[list[str]]:
    """What each seed came to in the metric of the recipe, with mean and standard deviation."""
    found = [_figure(run) for run in runs]
    values = [value for _, value in found if value is not None]
    names = dict.fromkeys(name for name, value in found if value is not None)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return [
        ["seed", "run", ", ".join(names) or "metric"],
        *[[str(run.recipe.seed), run.name, number(value)] for run, (_, value) in zip(runs, found)],
        ["", "mean", number(statistics.fmean(values)) if values else NOTHING],
        ["", "standard deviation", number(spread)],
    ]


def compare_command(runs: Sequence[Run], folder: Path) -> str:
    """The command that sets runs side by side."""
    where = [] if folder == Path("runs") else ["--runs", str(folder)]
    return shlex.join(["etude", "compare", *(run.name for run in runs), *where])


def _figure(run: Run) -> tuple[str, float | None]:
    """The metric of a run: on the rows it was scored on at its end, else at its best moment."""
    scored = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)]
    task = ChosenMetric.parse(run.recipe.evaluate.metric).task
    if mine := [
        scores for scores in scored if scores.split in (f"{task} test".strip(), f"{task} validation".strip())
    ]:
        last = mine[-1]
        return f"{last.metric} on {last.rows:,} {last.split} rows", last.systems["after"][last.metric][0]
    best = run.best
    return (f"best {best.get('metric')}", best["value"]) if best else ("", None)


def _origin(run: Run) -> tuple[object, ...]:
    """What a run was made of beside its recipe: data, first weights, one's own code."""
    kept = run.environment
    digest = (kept.get("base") or {}).get("sha256")
    return kept["data_fingerprint"], digest, run.info.get("parent"), bool(kept.get("own_code"))


def _origin_wanted(recipe: Recipe, options: "Options", day: str | None) -> tuple[object, ...]:
    from etude.plan import make_plan
    from etude.start import base_of, split_choice

    plan = make_plan(recipe, today=day)
    parent = split_choice(options.weights)[0] if options.weights else None
    return plan.fingerprint, (base_of(plan) or {}).get("sha256"), parent, False
