"""Device time is charged once: whatever trials share, their shares add up to the time that was measured."""

import math
import random
from pathlib import Path

import pytest

from etude.recipe.load import recipe_from
from etude.report.history import read_history
from etude.sweep.costs import Costs, split_costs
from etude.sweep.grid import Trial
from tests.recipes import tiny
from tests.report.runs import finished_run
from tests.sweep.journals import Course, write_trial


def trial(name: str, steps: int) -> Trial:
    recipe = recipe_from(tiny(Path("rows.jsonl"), {"name": name, "train.steps": steps}))
    return Trial(name, "tier", "net", 0, {"train.steps": steps}, recipe)


def family(runs: Path, seed: int, devices: int = 1) -> Costs:
    """A random tree of trials, each forked from a random earlier one at a step that this one makes itself."""
    draw = random.Random(seed)
    plans = [("t0", "", 0, 40)]
    for number in range(1, draw.randint(2, 5)):
        parent, _, begun, steps = draw.choice(plans)
        fork = draw.randint(begun + 1, steps - 1)
        plans.append((f"t{number}", parent, fork, fork + draw.randint(2, 20)))
    found = {}
    for name, parent, fork, steps in plans:
        forks = [at for _, other, at, _ in plans if other == name]
        course = Course(steps, seconds=draw.uniform(0.5, 2.0), devices=devices)
        begun = (found[parent], fork) if parent else None
        found[name] = write_trial(runs, trial(name, steps), course, forks, begun, rows=0)
    return split_costs({name: read_history(run) for name, run in found.items()})


@pytest.mark.parametrize("seed", range(12))
def test_shares_add_up_to_the_measured_time_for_any_tree(tmp_path: Path, seed: int) -> None:
    costs = family(tmp_path / "runs", seed, devices=1 + seed % 2)
    total = math.fsum(costs.charged.values())
    assert total == pytest.approx(costs.measured, rel=1e-12) and costs.measured > 0 and not costs.unknown
    assert math.fsum(part.seconds for part in costs.parts) == pytest.approx(costs.measured, rel=1e-12)
    assert all(costs.charged[name] <= costs.alone[name] * (1 + 1e-12) for name in costs.charged)


def test_a_shared_half_is_paid_by_both_as_worked_out_by_hand(tmp_path: Path) -> None:
    long = write_trial(tmp_path, trial("long", 20), Course(20, seconds=1.0, every=100), forks=[8])
    short = write_trial(tmp_path, trial("short", 12), Course(12, seconds=1.0, every=100), parent=(long, 8))
    costs = split_costs({"long": read_history(long), "short": read_history(short)})
    # Shared: 1 s to read data, 8 steps of 1 s, 0.5 s for the checkpoint. Each then: its own steps, an
    # evaluation of 2 s, and 3 s of final scores.
    shared, rest, tail = 1 + 8 + 0.5, 12 + 2 + 3, 4 + 2 + 3
    assert costs.charged == pytest.approx({"long": shared / 2 + rest, "short": shared / 2 + tail})
    assert costs.alone == pytest.approx({"long": shared + rest, "short": shared + tail})
    assert [(part.first, part.last, part.trials) for part in costs.parts] == [
        (1, 8, ("long", "short")), (9, None, ("long",)), (9, None, ("short",))
    ]  # fmt: skip


def test_a_run_alone_costs_its_wall_time_with_all_that_restarts_repeated(tmp_path: Path) -> None:
    history = read_history(write_trial(tmp_path, trial("one", 30), Course(30, seconds=2.0)))
    assert split_costs({"one": history}).measured == pytest.approx(history.wall_seconds)


def test_what_a_run_that_is_not_here_made_is_told_and_not_guessed(tmp_path: Path) -> None:
    long = write_trial(tmp_path, trial("long", 20), Course(20), forks=[8])
    short = read_history(write_trial(tmp_path, trial("short", 12), Course(12), parent=(long, 8)))
    costs = split_costs({"short": short})
    assert costs.unknown == ("short",) and costs.charged["short"] == pytest.approx(4 + 2 + 2 + 3)


def test_words_of_people_cost_nothing(tmp_path: Path) -> None:
    from etude.records.events import Note
    from etude.records.store import append_note

    run = finished_run(tmp_path)
    before = split_costs({"one": read_history(run)}).measured
    append_note(run, Note("lessons", "days later"))
    assert split_costs({"one": read_history(run)}).measured == before
