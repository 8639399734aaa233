"""One stage of a sweep: a trial up to each step where others leave it, and to its end."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.durable import lock, open_lock
from etude.engine.fork import fork
from etude.errors import InputError
from etude.launch.ranks import RESUMABLE, Ended, has_own_ranks, run_ranks
from etude.recipe.load import load_recipe, read_recipe_text
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.folder import list_checkpoints, step_of
from etude.records.store import Run, find_runs
from etude.run import Training
from etude.start import Options


@dataclass(frozen=True)
class Branch:
    """Another trial that goes on from a step of this one, by its recipe file."""

    step: int
    path: Path


def run_stage(
    path: Path, runs: Path, branches: Sequence[Branch], until: int | None = None,
    traced: tuple[int, int] | None = None,
) -> Ended:  # fmt: skip
    """Train the trial of a recipe file to its end or a step, and fork each branch when its step is done.

    A run that is there is continued, one that is finished is left as it is, and so is a branch that has a
    run. A trial that stops before the step of a branch gives it its end, as the branch would stop there too.
    traced: as of `Options`.
    """
    recipe = load_recipe(path)
    run = find_trial(runs, path)
    if has_own_ranks(recipe):
        words = ["resume", str(run.path)] if run else ["train", str(path), "--runs", str(runs)]
        return run_ranks(recipe, words)
    waiting = [branch for branch in branches if find_trial(runs, branch.path) is None]
    if run and not run.is_unfinished:
        ended = Ended(0, run=run)
    else:
        text = None if run else read_recipe_text(path)
        options = Options(
            runs=runs, recipe_text=text, resume=run, stop_at=until, has_report=False, traced=traced
        )
        ended = _train(run.recipe if run else recipe, options, waiting)
    if not ended.code and ended.run:
        _branch(ended.run, waiting)
    return ended


def find_trial(runs: Path, path: Path) -> Run | None:
    """The newest run of the recipe of a file, forks too."""
    return next(reversed(find_runs(runs, load_recipe(path))), None)


def hold_stage(path: Path) -> int | None:
    """Hold the stage of a recipe file until this process ends; None if another process does it."""
    file = path.with_name(f".{path.stem}.lock")
    descriptor = open_lock(file)
    if lock(descriptor, file):
        return descriptor
    os.close(descriptor)
    return None


def is_stage_held(path: Path) -> bool:
    """Tell if a process does the stage of a recipe file."""
    descriptor = hold_stage(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _train(recipe: Recipe, options: Options, waiting: list[Branch]) -> Ended:
    """Train a trial to its end or pause; branches are forked at their steps, and taken out of the waiting."""
    if options.resume:
        steps = _saved_steps(options.resume)
        _branch(options.resume, waiting, {branch.step for branch in waiting if branch.step <= steps})
    training = Training(recipe, options)
    with contextlib.closing(iter(training)) as steps_made:
        for step in steps_made:
            if any(branch.step == step.number for branch in waiting):
                training.save()
                _branch(training.run, waiting, {step.number})
    ending: Ending = training.ending
    code = RESUMABLE if ending.is_resumable else 0
    return Ended(code, ending.reason, training.run, ending.was_asked)


def _branch(run: Run, waiting: list[Branch], at: set[int] | None = None) -> None:
    """Fork the branches that wait for these steps, by default all; a run that ended before gives its end.

    A branch whose step is no longer there is trained by itself.
    """
    for branch in [branch for branch in waiting if at is None or branch.step in at]:
        waiting.remove(branch)
        with contextlib.suppress(InputError):
            fork(run, min(branch.step, _saved_steps(run)), run.path.parent, load_recipe(branch.path))


def _saved_steps(run: Run) -> int:
    """Steps of the newest checkpoint."""
    return max((step_of(path.name) or 0 for path in list_checkpoints(run.checkpoints)), default=0)
