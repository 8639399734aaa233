"""Train the grid of the benchmark of the watch: healthy runs and faulty ones, each kept as a compact curve.

python benchmarks/watch/grid.py [--limit-seconds 1800] [--only fault] [--part 1/2] [--list]

Cases that have a curve of today's version in results/watch/ are not run again. Any beginning of the grid is balanced over
healthy and faulty conditions and over combinations; the severe faults come first. All of it takes hours on
one core.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etude import Options, Training
from etude.errors import EtudeError
from etude.recipe.course import Change
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Control, DataUsed, Finding
from etude.records.store import Run
from etude.watch.journal import facts_of, points_of
from watch.cases import (
    COMBINATIONS,
    ONSET,
    SEEDS,
    STEPS,
    VERSION,
    Case,
    Combination,
    hard_rows,
    healthy_cases,
    present,
    recipe_of,
)
from watch.curve import Curve, read_curves, write_curve
from watch.faults import FAULTS, Fault, own_loss
from watch.meddling import meddled, replaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--part", default="1/1", help="of the cases, where several processes share them")
    parser.add_argument("--again", action="store_true", help="run cases again that have a curve")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")
    options = parser.parse_args()
    cases = [each for each in order(present()) if options.only in each.name]
    done = set() if options.again else {each.name for each in read_curves() if each.version == VERSION}
    part, parts = map(int, options.part.split("/"))
    left = [each for each in cases[part - 1 :: parts] if each.name not in done]
    if options.list:
        print("\n".join(each.name for each in cases))
        return
    print(f"{len(cases)} cases, {len(left)} to run", flush=True)
    started = time.monotonic()
    with quick():
        for number, case in enumerate(left, 1):
            if time.monotonic() - started > options.limit_seconds:
                print(f"time is up: {len(left) - number + 1} cases are left; run it again to go on")
                return
            begun = time.monotonic()
            curve = run_case(case)
            if curve.ending == "stopped":
                print("stopped as asked; run it again to go on")
                return
            write_curve(curve)
            found = " ".join(dict.fromkeys(f"{each.kind}@{each.step}" for each in curve.recorded))
            seconds = time.monotonic() - begun
            print(
                f"{number}/{len(left)} {case.name} {seconds:.1f} s {curve.ending[:60]}: {found}", flush=True
            )


def order(combinations: list[Combination]) -> list[Case]:
    """All cases, healthy and faulty ones in turn, so that any beginning is balanced; severe faults first."""
    healthy, faulty = list(healthy_cases(combinations)), list(faulty_cases(combinations))
    draw = random.Random(14)
    draw.shuffle(healthy)
    places = [(index / len(part), case) for part in (healthy, faulty) for index, case in enumerate(part)]
    return [case for _, case in sorted(places, key=lambda each: each[0])]


def faulty_cases(combinations: list[Combination]) -> Iterator[Case]:
    """Every fault at every strength on two combinations that can have it in turn, from two seeds."""
    rounds: list[list[Case]] = []
    for name, fault in FAULTS.items():
        able = [each for each in combinations if any(need <= each.traits for need in fault.traits)]
        random.Random(name).shuffle(able)
        chosen = [
            Case(able[turn % len(able)].name, name, strength, SEEDS[turn // len(able) % len(SEEDS)], False)
            for turn, strength in enumerate((0, 1, 2) * 4)
            if able
        ]
        rounds.append(list(dict.fromkeys(chosen)))
    for turn in range(12):
        for cases in rounds:
            yield from cases[turn : turn + 1]


def run_case(case: Case, folder: Path | None = None, changes: dict[str, Any] | None = None) -> Curve:
    """Train a case, and read its curve off the journal. changes: of the recipe, as a remedy would have them."""
    fault = None if case.is_healthy else FAULTS[case.condition]
    recipe = recipe_of_case(case, fault, changes or {})
    home = Path(tempfile.mkdtemp(prefix="watch-", dir=folder or fast_folder()))
    try:
        ending, run = train(case, fault, recipe, home)
        return curve_of(case, fault, run, ending)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def recipe_of_case(case: Case, fault: Fault | None, changes: dict[str, Any]) -> Recipe:
    usual = COMBINATIONS[case.combination].learning_rate
    strength = fault.strengths[case.strength] if fault else 0.0

    def change_rows(train: Any, held_out: Any, draw: random.Random) -> Any:
        if fault is None:
            return hard_rows(case.condition, train, held_out, draw)
        return fault.rows(train, held_out, draw, strength) if fault.rows else (train, held_out)

    own = fault.recipe(strength, usual) if fault and fault.recipe else {}
    return recipe_of(case, changes={**own, **changes}, change_rows=change_rows)


def train(case: Case, fault: Fault | None, recipe: Recipe, home: Path) -> tuple[str, Run]:
    """Run a recipe with the fault of its case; how it ended, and the run."""
    strength = fault.strengths[case.strength] if fault else 0.0
    loss = (
        own_loss() if case.condition == "own_loss" else fault.loss(strength) if fault and fault.loss else None
    )
    dated: tuple[Change, ...] = ()
    if fault and fault.course:
        rate = recipe.optim.learning_rate * fault.course(strength)
        dated = (Change(ONSET, "optim.learning_rate", rate),)
    training = Training(recipe, Options(runs=home, new=True, loss=loss, changes=dated))
    with contextlib.ExitStack() as stack:
        if fault and fault.patch:
            stack.enter_context(fault.patch(strength))
        if fault and fault.meddle:
            stack.enter_context(meddled(fault.meddle(strength)))
        try:
            for step in training:
                if case.condition == "restart" and step.number == STEPS // 2:
                    break
            if case.condition == "restart":
                training = Training(recipe, Options(runs=home))
                for _ in training:
                    pass
            ending = str(training.ending.state)
        except EtudeError as error:
            if not hasattr(training, "run"):  # refused before it began
                raise
            ending = f"failed: {error}"
    return ending, training.run


def curve_of(case: Case, fault: Fault | None, run: Run, ending: str) -> Curve:
    """The curve of a finished run."""
    events = [entry.event for entry in run.ledger().entries]
    attempt = [each for each in run.ledger().all if isinstance(each.event, Attempt)][-1].event
    data = next((each for each in events if isinstance(each, DataUsed)), None)
    assert isinstance(attempt, Attempt)
    reasons = [each.reason for each in events if isinstance(each, Control) and each.action == "fail"]
    recorded = [each for each in events if isinstance(each, Finding) and each.kind]
    return Curve(
        asdict(case), fault.onset if fault else 0, facts_of(run.recipe, attempt, data), list(points_of(events)),
        recorded, reasons[-1] if reasons else ending, VERSION,
    )  # fmt: skip


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Runs in this block end without scores and report, and do not wait for the disk: nobody reads them."""
    from etude import run

    with (
        replaced(run, "write_report", lambda run: None),
        replaced(run, "_compare", lambda session: None),
        replaced(os, "fsync", lambda descriptor: None),
    ):
        yield


def fast_folder() -> str | None:
    """Memory, where the machine has such a folder; else the usual one for temporary files."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) else None


if __name__ == "__main__":
    if not present():
        raise SystemExit("no data set of the benchmark is on this machine; see shared/data beside the code")
    main()
