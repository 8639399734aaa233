"""The commands of sweeps."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import Json, parse_output, parse_path
from etude.cli.printing import print_json, print_rows, print_table, say
from etude.durable import write_file
from etude.text import rough_duration

SweepPath = Annotated[
    Path, typer.Argument(parser=parse_path, help="a sweep file", metavar="SWEEP", show_default=False)
]


def plan_sweep(
    sweep: SweepPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_output, metavar="PATH", help="the plan as a document, to write"),
    ] = None,
    trials: Annotated[bool, typer.Option("--trials", help="list every trial")] = False,
    as_json: Json = False,
) -> None:
    """Show the trials of a sweep, the work that they share and the time they take; nothing is trained."""
    from etude.sweep.document import grid_text, seconds_of, shared_line, shared_notes, trial_rows, write_plan
    from etude.sweep.grid import load_sweep
    from etude.sweep.measure import measure
    from etude.sweep.tree import build_tree

    loaded = load_sweep(sweep)
    measured = measure(loaded)
    tree = build_tree(measured.planned)
    if out is not None:
        write_file(out, write_plan(loaded, measured, tree).encode())
    seconds = seconds_of(measured, tree)
    if as_json:
        print_json({
            "name": loaded.file.name, "trials": len(loaded.trials), "trunks": len(tree.trunks),
            "epochs_alone": tree.epochs_alone, "epochs": tree.epochs, "steps_alone": tree.steps_alone,
            "steps": tree.steps, "seconds": seconds, "notes": [*shared_notes(measured), *measured.notes],
            "problems": measured.problems_by_model,
            "stages": [
                {"trial": each.name, "parent": each.parent, "fork": each.fork, "steps": each.planned.steps}
                for each in tree.stages
            ],
        })  # fmt: skip
        return
    rows = [
        (f"{tier.name}: {model.name}", grid_text(tier, model))
        for tier in loaded.file.tiers
        for model in tier.models
    ]
    rows += [("trials", f"{len(loaded.trials):,}"), ("shared work", shared_line(tree))]
    rows += [("", note) for note in shared_notes(measured)]
    if seconds is not None:
        rows.append(("time", f"about {rough_duration(seconds)} of one device"))
    rows += [("note", note) for note in measured.notes]
    rows += [(f"! {name}", problem) for name, problem in measured.problems_by_model.items()]
    print_rows(rows)
    if trials:
        print_table(trial_rows(loaded.trials, tree))
    if out is not None:
        say(f"the plan is written to {out}")
