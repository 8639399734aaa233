"""kill -9 between a finding and what the policy makes of it: the same command recovers once, to the same bits."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude import durable
from etude.recipe.schema import Recipe
from etude.records.events import Control, Finding
from etude.records.store import Run, list_runs
from etude.run import Training
from etude.start import Options
from tests.limited import fragile_loss
from tests.processes import in_a_fork

Make = Callable[..., Recipe]


def live(recipe: Recipe, runs: Path, at: int = -1) -> tuple[list[tuple[str, str]], list[tuple[int, int]]]:
    """Train, killed at a call of a write; returns these calls, and after each step their number."""
    after = []
    with durable.faults(durable.FaultPlan(at)) as plan:
        for step in Training(recipe, Options(runs=runs, loss=fragile_loss)):
            after.append((step.number, len(plan.calls)))
    return plan.calls, after


def outcome(run: Run) -> dict[str, Any]:
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    counted, every = ([entry.event for entry in part] for part in (run.ledger().entries, run.ledger().all))
    return {
        "files": [(last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")],
        "findings": [(each.kind, each.step) for each in counted if isinstance(each, Finding) and each.kind],
        "controls": [
            (each.action, each.request, each.changes) for each in counted if isinstance(each, Control)
        ],
        "recoveries": sum(isinstance(each, Control) and each.request == "watch" for each in every),
        "state": run.state,
    }


def test_killed_between_a_finding_and_its_recovery_a_run_recovers_once_to_the_same_bits(
    tmp_path: Path, make_recipe: Make
) -> None:
    """The error comes at a step that is saved, so that a run may go on from there with it."""
    recipe = make_recipe({
        "watch.policy": "recover", "optim.learning_rate": 2e-2, "schedule.kind": "constant", "train.steps": 30,
        "records.log_every_steps": 1, "evaluate.every_steps": 30, "checkpoint.every_steps": 4,
        "checkpoint.keep": "all",
    })  # fmt: skip
    live(recipe, tmp_path / "prepared")
    calls, after = live(recipe, tmp_path / "whole")
    whole = outcome(list_runs(tmp_path / "whole")[0])
    assert (whole["recoveries"], whole["state"]) == (1, "finished")
    back = next(place for place, (step, _) in enumerate(after[1:], 1) if step <= after[place - 1][0])
    (error, _), (begins, _) = after[back - 1], after[back]
    assert error == 28 and begins == 17
    first, last = after[back - 2][1], after[back][1]
    points = {first, last - 1, (first + last) // 2}
    points |= {at + 1 for at in range(first, last) if calls[at] == ("rename", "manifest.json")}
    points |= {at for at in range(last - 40, last) if calls[at] == ("write", "journal.jsonl")}
    for at in sorted(points):
        runs = tmp_path / f"killed{at}"
        assert in_a_fork(lambda runs=runs, at=at: live(recipe, runs, at)) == -signal.SIGKILL  # type: ignore[misc]
        assert in_a_fork(lambda runs=runs: live(recipe, runs)) == 0  # type: ignore[misc]
        (run,) = list_runs(runs)
        assert outcome(run) == whole, f"killed at {calls[at]}, write {at} of {len(calls)}"
        assert not list(run.path.rglob(".*.tmp"))
