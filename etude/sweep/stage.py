"""One stage of a sweep: a trial up to each step where others leave it, and to its end."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.durable import open_lock
from etude.engine.fork import fork
from etude.errors import InputError
from etude.launch.ranks import RESUMABLE, Ended, has_own_ranks, run_ranks
from etude.recipe.load import load_recipe, read_recipe_text
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


def run_stage(path: Path, runs: Path, branches: Sequence[Branch]) -> Ended:
    """Train the trial of a recipe file to its end, and fork each branch when its step is done.

    A run that is there is continued, one that is finished is left as it is, and so is a branch that has a
    run. A trial that stops before the step of a branch gives it its end, as the branch would stop there too.
    """
    recipe = load_recipe(path)
    options = Options(runs=runs, recipe_text=read_recipe_text(path))
    if has_own_ranks(recipe):
        run = find_trial(runs, path)
        words = ["resume", str(run.path)] if run else ["train", str(path), "--runs", str(runs)]
        return run_ranks(recipe.train.devices, words)
    for branch in sorted(branches, key=lambda each: each.step):
        if find_trial(runs, branch.path) is None:
            ended = _train(path, options, until=branch.step)
            if ended.code:
                return ended
            assert ended.run is not None
            with contextlib.suppress(InputError):  # the branch is then trained by itself
                _branch(ended.run, branch, runs)
    return _train(path, options)


def find_trial(runs: Path, path: Path) -> Run | None:
    """The newest run of the recipe of a file, forks too."""
    return next(reversed(find_runs(runs, load_recipe(path))), None)


def hold_stage(path: Path) -> int | None:
    """Hold the stage of a recipe file until this process ends; None if another process does it."""
    import fcntl

    descriptor = open_lock(path.with_name(f".{path.stem}.lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _branch(run: Run, branch: Branch, runs: Path) -> None:
    """Fork a trial at its step, or at the last one of a run that stopped before. Raises: as `fork`."""
    steps = [step_of(path.name) or 0 for path in list_checkpoints(run.checkpoints)]
    fork(run, min(branch.step, max(steps, default=0)), runs, load_recipe(branch.path))


def _train(path: Path, options: Options, until: int | None = None) -> Ended:
    """Train a trial until a step is done, or to its end; how it ended, with its run."""
    run = find_trial(options.runs, path)
    if run is not None:
        steps = [step_of(each.name) or 0 for each in list_checkpoints(run.checkpoints)]
        if not run.is_unfinished or (until is not None and max(steps, default=0) >= until):
            return Ended(0, run=run)
        options = Options(runs=options.runs, resume=run)
    training = Training(run.recipe if run else load_recipe(path), options)
    is_reached = False
    with contextlib.closing(iter(training)) as steps_made:
        for step in steps_made:
            if step.number == until:
                is_reached = True
                break
    ending: Ending = training.ending
    code = 0 if is_reached or not ending.is_resumable else RESUMABLE
    return Ended(code, ending.reason, training.run, ending.was_asked and not is_reached)
