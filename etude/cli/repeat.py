"""`etude train --repeat`: one seed after another, each a run of its own, and a table of their figures."""

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

import typer

from etude.cli.execute import print_end, tell_ranks, train_here
from etude.cli.printing import print_table, say
from etude.control.ranks import read_place
from etude.errors import InputError
from etude.launch.ranks import RESUMABLE, has_own_ranks
from etude.launch.seeds import Seed, execute, find_seeds
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from etude.records.events import Scores
from etude.records.store import Run
from etude.report.history import read_history
from etude.report.wording import NOTHING, number
from etude.start import Options
from etude.text import plural


def train_repeatedly(
    recipe: Recipe, options: Options, count: int, words: list[str], *, as_json: bool = False
) -> None:
    """Train several seeds, and print the figure of each; `words` are the command for the first of them.

    as_json: print lines of JSON as `train_here` does, and no table.
    """
    if read_place().size > 1:
        raise InputError("--repeat starts the ranks of each run; leave torchrun out and give --devices")
    runs = []
    for place, seed in enumerate(find_seeds(recipe, options, count), start=1):
        title = f"seed {seed.recipe.seed}, {place} of {count}"
        if seed.finished is not None:
            say(f"{title}: {seed.finished.name} is finished already (--new trains it again)")
            runs.append(seed.finished)
            if as_json:
                print_end(seed.finished, 0)
        else:
            say(title)
            runs.append(_train(seed, words, as_json=as_json))
    if not as_json:
        print_table(outcome_table(runs))
    say(f"side by side: {compare_command(runs, options.runs)}")


def outcome_table(runs: Sequence[Run]) -> list[list[str]]:
    """A row for each seed with its figure in the metric of the recipe, then mean and standard deviation."""
    figures = [_figure(run) for run in runs]
    values = [value for _, value in figures if value is not None]
    names = dict.fromkeys(name for name, value in figures if value is not None)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return [
        ["seed", "run", ", ".join(names) or "metric"],
        *[[str(run.recipe.seed), run.name, number(value)] for run, (_, value) in zip(runs, figures)],
        ["", "mean", number(statistics.fmean(values)) if values else NOTHING],
        ["", "standard deviation", number(spread)],
    ]


def compare_command(runs: Sequence[Run], folder: Path) -> str:
    """The command that sets runs side by side."""
    where = [] if folder == Path("runs") else ["--runs", str(folder)]
    return shlex.join(["etude", "compare", *(run.name for run in runs), *where])


def _train(seed: Seed, words: list[str], *, as_json: bool) -> Run:
    """Train one seed. Raises: typer.Exit if it did not finish, or a signal asked to stop."""
    if has_own_ranks(seed.recipe):
        ended = execute(seed.recipe, seed.options, words)
        tell_ranks(ended)
    else:
        ended = train_here(seed.recipe, seed.options, to_continue="the same command", as_json=as_json)
        if ended.was_asked:
            say("stopped; continue with: the same command")
            raise typer.Exit(RESUMABLE)
    assert ended.run is not None
    return ended.run


def _figure(run: Run) -> tuple[str, float | None]:
    """The metric of a run: on the rows it was scored on at its end, else at its best moment."""
    task = ChosenMetric.parse(run.recipe.evaluate.metric).task
    splits = (f"{task} test".strip(), f"{task} validation".strip())
    if mine := [scores for scores in read_history(run).events(Scores) if scores.split in splits]:
        last = mine[-1]
        rows = plural(last.rows, f"{last.split} row")
        return f"{last.metric} on {rows}", last.systems["after"][last.metric][0]
    best = run.best
    return (f"best {best.get('metric')}", best["value"]) if best else ("", None)
