"""`etude verify` for what etude wrote itself: it is held against the journals."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from etude.cli.printing import print_json, print_rows, print_text, say
from etude.text import plural

if TYPE_CHECKING:
    from etude.report.verifying import Verification

MOST_SEED = 1 << 32


def verify_own(what: str, runs: Path, replay: int | None, seed: int | None, *, as_json: bool) -> None:
    """Verify a run, and train so many of its intervals again. Exits with 1 if something does not follow."""
    from etude.records.store import open_run
    from etude.report.verifying import verify_run

    run = open_run(what, runs)
    made = verify_run(run.path)
    if replay is not None:
        from etude.replay import replay_intervals

        seed = secrets.randbelow(MOST_SEED) if seed is None else seed
        say(f"the lot of the intervals has --seed {seed}")
        made.take(replay_intervals(run, replay, seed))
    _tell(made, as_json=as_json)


def verify_others(path: Path, runs: Path, *, as_json: bool) -> None:
    """Verify a comparison, an exported model or a sweep. Exits with 1 if something does not follow."""
    if not path.is_dir():
        from etude.report.verifying_comparison import verify_comparison

        made = verify_comparison(path, runs)
    elif os.path.lexists(path / "sweep.toml"):
        from etude.sweep.verifying import verify_sweep

        made = verify_sweep(path)
    else:
        from etude.report.verifying_card import verify_export

        made = verify_export(path, runs)
    _tell(made, as_json=as_json)


def _tell(made: "Verification", *, as_json: bool) -> None:
    if as_json:
        print_json(made.to_dict())
    else:
        for each in made.deviations:
            print_text(str(each))
        print_rows([(f"{what} examined", f"{number:,}") for what, number in made.examined.items()])
        for sentence in made.open:
            say(f"not settled: {sentence}")
        count = plural(len(made.deviations), "deviation")
        say(f"{made.name}: {count if made.deviations else 'all that was examined follows from the records'}")
    if made.deviations:
        raise typer.Exit(1)
