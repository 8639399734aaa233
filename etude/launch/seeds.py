"""Run after run of one recipe: the executor of a run, and the seeds that go through it one after another."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from etude.errors import InputError
from etude.launch.ranks import RESUMABLE, Ended, has_own_ranks, run_ranks
from etude.plan import make_plan
from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.store import Run, find_runs, find_unfinished
from etude.run import run_recipe
from etude.start import Options, base_of, find_first


@dataclass(frozen=True)
class Seed:
    """A recipe with one seed, and the run that has finished it already, if there is one."""

    recipe: Recipe
    options: Options
    finished: Run | None


def execute(recipe: Recipe, options: Options, words: list[str]) -> Ended:
    """Train a recipe in this process, or in its ranks, which run `etude WORDS` with its seed and options."""
    if not has_own_ranks(recipe):
        training = run_recipe(recipe, options)
        ending = training.ending
        code = RESUMABLE if ending.is_resumable else 0
        return Ended(code, ending.reason, training.run, ending.was_asked)
    given = [f"seed={recipe.seed}", "--runs", str(options.runs), "--devices", str(recipe.train.devices)]
    given += ["--new"] * options.new + (["--from", options.weights] if options.weights else [])
    ended = run_ranks(recipe, [*words, *given])
    return ended if ended.code else replace(ended, run=find_runs(options.runs, recipe)[-1])


def find_finished(recipe: Recipe, options: Options) -> Run | None:
    """The newest finished run of the same recipe, data and first weights, unless one is left unfinished."""
    first = find_first(options)
    if find_unfinished(options.runs, recipe, first):
        return None
    wanted = functools.cache(lambda day: _wanted_origin(recipe, day))
    for run in reversed(find_runs(options.runs, recipe)):
        with contextlib.suppress(InputError):  # a damaged one is no reason not to train
            is_same = (
                first.are_of(run.info)
                and not {"origin", "replays"} & run.info.keys()
                and not run.is_unfinished
            )
            if is_same and _origin(run) == wanted(run.day):
                return run
    return None


def find_seeds(recipe: Recipe, options: Options, count: int) -> Iterator[Seed]:
    """The recipe with its seed and the `count - 1` after it, each looked up when it is asked for.

    The newest run of a recipe and seed counts: unfinished it is continued; finished it is taken as it is if
    it was made of the same data and first weights. With `options.new` all are trained anew.
    """
    # The same for every seed, and slow.
    wanted, first = functools.cache(lambda day: _wanted_origin(recipe, day)), find_first(options)
    for index in range(count):
        repeat = with_changes(recipe, {"seed": recipe.seed + index})
        known = None if options.new else next(reversed(find_runs(options.runs, repeat)), None)
        is_finished = known is not None and known.lease["state"] == "finished"
        is_same = is_finished and known is not None and first.are_of(known.info)
        is_same = is_same and known is not None and _origin(known) == wanted(known.day)
        new = replace(options, new=is_finished or options.new, resume=None)
        yield Seed(repeat, new, known if is_same else None)


def _origin(run: Run) -> tuple[object, ...]:
    """The data, base and own code of a run."""
    kept = run.environment
    digest = (kept.get("base") or {}).get("sha256")
    return kept["data_fingerprint"], digest, bool(kept.get("own_code"))


def _wanted_origin(recipe: Recipe, day: str | None) -> tuple[object, ...]:
    plan = make_plan(recipe, today=day)
    return plan.fingerprint, (base_of(plan) or {}).get("sha256"), False
