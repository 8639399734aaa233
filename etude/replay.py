"""A run made again: its recipe, and the changes that people and the watch made while it went on."""

from dataclasses import replace

from etude.engine.checkpoint import newest_valid
from etude.errors import InputError
from etude.recipe.course import Change
from etude.recipe.load import diff, recipe_hash
from etude.recipe.schema import Recipe
from etude.records.changes import all_changes
from etude.records.folder import step_of
from etude.records.store import Run
from etude.start import Options, find_first


def replay(recipe: Recipe, run: Run, options: Options) -> tuple[Recipe, Options]:
    """The recipe and the options that give the weights of a run again, bit for bit, on the same hardware.

    It has the values that the run found by itself, its changes from the start, and goes as far as that went:
    to the end of a finished run, else to its newest checkpoint.

    Raises: InputError if the recipe is another one, or the run began with other weights.
    """
    run.require_own_recipe()
    if recipe_hash(recipe) not in (run.info["recipe_hash"], recipe_hash(run.recipe)):
        others = [
            f"{key} = {new}"
            for key, (_, new) in diff(run.recipe, recipe).items()
            if new not in (None, "auto")
        ]
        advice = f"give the recipe as it was, {run.path / 'recipe.toml'}"
        raise InputError(f"the recipe is not that of run {run.name} ({', '.join(others[:3])}); {advice}")
    if own := run.info.get("origin", {}).get("changes"):
        parent = run.info["origin"]["run"]
        raise InputError(
            f"run {run.name} is a fork of {parent} with another {min(own)}, which its first steps did not "
            f"have; replay {parent}, and fork that"
        )
    if find_first(options).sha256 != run.info.get("weights"):
        parent = run.info.get("parent")
        advice = f"give them with --from {parent}@..." if parent else "leave --from out"
        raise InputError(f"run {run.name} began with other first weights; {advice}")
    changes = all_changes(entry.event for entry in run.ledger().entries)
    again = tuple(Change(each.step, each.key, each.value, each.reason, channel="replay") for each in changes)
    end = None
    if run.is_unfinished:
        path, _ = newest_valid(run.checkpoints, run.info["id"])
        end = (path and step_of(path.name)) or 0
        if not end:
            raise InputError(f"run {run.name} has no checkpoint of a step yet, so there is nothing to replay")
    return run.recipe, replace(options, replays=run, changes=again, stop_at=end)
