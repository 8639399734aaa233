"""The commands of sweeps: plan one, run it, and the stage that a run of one starts."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.estimate import GpuName
from etude.cli.options import Json, RecipePath, Runs, parse_folder, parse_output, parse_path, require_other
from etude.cli.printing import print_json, print_rows, print_table, say
from etude.durable import write_file
from etude.errors import InputError
from etude.text import command

SweepPath = Annotated[
    Path, typer.Argument(parser=parse_path, help="a sweep file", metavar="SWEEP", show_default=False)
]

SweepFolderPath = Annotated[
    Path | None,
    typer.Option(
        "--folder", parser=parse_folder, metavar="PATH", help="the sweep folder (default: sweeps/NAME)"
    ),
]


def default_folder(name: str) -> Path:
    """The folder of a sweep of a name, where none is given."""
    return Path("sweeps") / name


def plan(
    sweep: SweepPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_output, metavar="PATH", help="the plan as a document, to write"),
    ] = None,
    gpu: GpuName = None,
    trials: Annotated[bool, typer.Option("--trials", help="list every trial")] = False,
    as_json: Json = False,
) -> None:
    """Show the trials of a sweep, the work that they share and the time they take; nothing is trained."""
    from etude.gpus import find_gpu
    from etude.sweep import document
    from etude.sweep.grid import load_sweep
    from etude.sweep.measure import measure_for_plan
    from etude.sweep.room import room_parts, shortage
    from etude.sweep.search import foresee
    from etude.sweep.stacks import stack_notes
    from etude.sweep.tree import build_tree

    require_other(out, sweep)
    loaded = foresee(load_sweep(sweep))
    measured = measure_for_plan(loaded, None if gpu is None else find_gpu(gpu))
    tree = build_tree(measured.planned)
    room = room_parts(measured.rooms, seeds=document.repeats_count(loaded))
    notes = document.shared_notes(measured) + stack_notes(loaded, tree, measured)
    if out is not None:
        write_file(out, document.write_plan(loaded, measured, tree).encode())
    if as_json:
        print_json({
            "name": loaded.file.name, "trials": len(loaded.trials), "trunks": len(tree.trunks),
            "epochs_alone": tree.epochs_alone, "epochs": tree.epochs, "steps_alone": tree.steps_alone,
            "steps": tree.steps, "seconds": document.seconds_of(measured, tree), "memory": measured.memory,
            "disk": room, "halving": document.foresee_halving(loaded, measured, tree),
            "notes": [*notes, *measured.notes], "problems": measured.problems_by_model,
            "stages": [
                {"trial": each.name, "parent": each.parent, "fork": each.fork, "steps": each.planned.steps}
                for each in tree.stages
            ],
        })  # fmt: skip
        return
    models = [(tier, model) for tier in loaded.file.tiers for model in tier.models]
    rows = [
        (f"{tier.name}: {each.name}", document.grid_text(tier, each, loaded.file.search))
        for tier, each in models
    ]
    rows += [("trials", f"{len(loaded.trials):,}"), ("shared work", document.shared_line(tree))]
    rows += [("", note) for note in notes]
    forecast = document.forecast_lines(loaded, measured, tree)
    rows += [("" if place else "forecast", line) for place, line in enumerate(forecast)]
    rows += [("note", note) for note in measured.notes]
    if gpu is None and (short := shortage(room, default_folder(loaded.file.name))):
        rows.append(("note", short))
    print_rows([*rows, *((f"! {name}", problem) for name, problem in measured.problems_by_model.items())])
    if trials:
        print_table(document.trial_rows(loaded.trials, tree))
    if out is not None:
        say(f"the plan is written to {out}")
    say(f"train them: {command('etude', 'sweep', 'run', sweep)}")


def run(
    sweep: SweepPath,
    folder: SweepFolderPath = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="go on with a sweep whose trials have changed")
    ] = False,
) -> None:
    """Train the trials of a sweep, several at once; the same command goes on after a stop or a kill."""
    from etude.launch.ranks import RESUMABLE
    from etude.sweep.execute import run_sweep
    from etude.sweep.folder import SweepFolder
    from etude.sweep.grid import load_sweep
    from etude.sweep.outcome import describe_outcome

    loaded = load_sweep(sweep)
    place = SweepFolder(folder or default_folder(loaded.file.name))
    outcome = run_sweep(loaded, place, sweep, say, accept=accept)
    for line in describe_outcome(outcome):
        say(line)
    if outcome.is_stopped:
        raise typer.Exit(RESUMABLE)
    if not outcome.is_whole:
        raise typer.Exit(1)
    say(f"side by side: {command('etude', 'runs', '--runs', place.runs)}")


def stage(
    recipe: RecipePath,
    runs: Runs = Path("runs"),
    branch: Annotated[
        list[str] | None,
        typer.Option("--branch", metavar="STEP=RECIPE", help="a trial that goes on from a step of this one"),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", parser=parse_path, metavar="RECIPE", help="another trial on the same base"),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(min=1, max=2**63 - 1, metavar="STEP", help="pause there, until it is called again"),
    ] = None,
    traced: Annotated[
        tuple[int, int] | None, typer.Option(metavar="SAMPLES BYTES", help="memory of a step, traced before")
    ] = None,
) -> None:
    """Train one trial of a sweep, as `etude sweep run` does, and fork others from its steps."""
    from etude.launch.ranks import RESUMABLE
    from etude.sweep.stage import Branch, hold_stage, run_stage
    from etude.sweep.together import run_stack

    branches = [Branch(int(step), parse_path(path)) for step, _, path in map(_split_branch, branch or [])]
    if hold_stage(recipe) is None:
        say(f"another process trains {recipe}")
        raise typer.Exit(RESUMABLE)
    if together := [each for each in others or [] if hold_stage(each) is not None]:
        ends = run_stack([recipe, *together], runs, say)
        raise typer.Exit(max((each.code for each in ends if each.code == RESUMABLE), default=ends[0].code))
    ended = run_stage(recipe, runs, branches, until, traced)
    if ended.reason:
        say(ended.reason)
    if ended.code:
        raise typer.Exit(ended.code)


def _split_branch(text: str) -> tuple[str, str, str]:
    step, sign, path = text.partition("=")
    if not (step.isdecimal() and len(step) < 19 and path):
        raise InputError(
            f"--branch {text[:80]} is not of the form STEP=RECIPE; give for example 100=short.toml"
        )
    return step, sign, path
