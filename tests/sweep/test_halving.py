"""Halving: only the best trials of a rung go on, to the bits that they have alone, whatever is killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from etude.records.events import Evaluation
from etude.records.store import list_runs
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.cells import Cell, find_runs_of
from etude.sweep.decisions import Decisions
from etude.sweep.deliverables import Deliverables, make_deliverables
from etude.sweep.document import forecast_lines, foresee_halving
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.measure import measure
from etude.sweep.outcome import Outcome, describe_outcome
from etude.sweep.search import with_found
from etude.sweep.tree import build_tree
from tests.bases import write_corpus
from tests.forking import server
from tests.processes import wait_for
from tests.sweeps import attempts, outcome, sweep_values, write_sweep

RATES = [1e-5, 1e-2, 1e-4, 3e-3]
HALVING = {"steps": [4, 8], "reduction_factor": 2}


def make(folder: Path, at_once: int = 1) -> Path:
    changes = {"train.steps": 12, "model.dropout": 0.1, "schedule.kind": "cosine"}
    values = sweep_values(write_corpus(folder / "corpus.jsonl"), {"optim.learning_rate": RATES}, changes)
    more = {"halving": HALVING, "resources": {"at_once": at_once}, "repeats": {"seeds": 1}}
    return write_sweep(folder / "sweep.toml", {**values, **more})


def execute(path: Path, place: Path) -> Outcome:
    return run_sweep(load_sweep(path), SweepFolder(place), path, lambda line: None)


def made_of(path: Path, place: Path) -> Deliverables:
    decided = Decisions.read(place)
    sweep = with_found(load_sweep(path), decided.found)
    return make_deliverables(sweep, lambda trials: find_runs_of(trials, place / "runs"), decided)


def losses(cell: Cell) -> dict[int, float]:
    return {step: evaluation.loss for step, (evaluation, _) in cell.evaluations.items()}


def by_rule(order: list[float], at: dict[float, float]) -> set[float]:
    """All that were once among the best half of those that had come, in this order."""
    found: set[float] = set()
    for count in range(1, len(order) + 1):
        found |= set(sorted(order[:count], key=lambda rate: at[rate])[: count // 2])
    return found


@dataclass(frozen=True)
class Swept:
    path: Path
    place: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep of four trials whose controller and stage were killed when the second had begun, at its end."""
    folder = tmp_path_factory.mktemp("halving")
    path, place = make(folder), folder / "place"
    words = ["sweep", "run", str(path), "--folder", str(place)]
    controller = server().etude(words, stderr=subprocess.DEVNULL)
    wait_for(lambda: (place / "runs").exists() and len(list_runs(place / "runs")) >= 2)
    controller.kill()
    controller.wait()
    for run in list_runs(place / "runs"):
        if run.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.lease["pid"], signal.SIGKILL)
    return Swept(path, place, execute(path, place))


def test_the_best_at_each_rung_go_on_as_if_they_had_never_paused(swept: Swept, tmp_path: Path) -> None:
    made = made_of(swept.path, swept.place)
    by_rate = {cell.trial.values["optim.learning_rate"]: cell for cell in made.cells}
    decided = Decisions.read(swept.place)
    assert [each.trial for each in decided.came if each.step == 4] == [cell.name for cell in made.cells]
    on = by_rule(RATES, {rate: losses(cell)[4] for rate, cell in by_rate.items()})
    assert {rate for rate, cell in by_rate.items() if 8 in losses(cell)} == on and len(on) == 2
    (final,) = [cell for cell in made.cells if cell.is_final]
    best = min(on, key=lambda rate: losses(by_rate[rate])[8])
    assert by_rate[best] is final is made.overall.best
    alone = run_recipe(final.trial.recipe, Options(runs=tmp_path / "alone")).run
    assert final.history is not None and outcome(final.history.run) == outcome(alone)
    assert {4, 8} < {0, *attempts(final.history.run)}
    (other,) = on - {best}
    left = by_rate[other]
    alone = run_recipe(left.trial.recipe, Options(runs=tmp_path / "alone")).run
    kept = [each.event for each in alone.ledger().entries if isinstance(each.event, Evaluation)]
    assert left["step"] == 8 and left.value == next(each.loss for each in kept if each.step == 8)
    assert (
        made.shrinkage is not None and made.shrinkage.again[0].state == "finished"
    )  # the new seed never paused
    ended = swept.outcome
    assert (ended.finished, ended.trials, ended.censored) == (2, 5, 3)
    assert describe_outcome(ended)[0] == "2 of 5 trials finished, 3 censored at rungs"


def test_with_two_places_the_rule_holds_for_the_order_in_which_trials_came(tmp_path: Path) -> None:
    path, place = make(tmp_path, at_once=2), tmp_path / "place"
    words = ["sweep", "run", str(path), "--folder", str(place)]
    controller = server().etude(words, stderr=subprocess.DEVNULL)
    wait_for(lambda: place.exists() and Decisions.read(place).came)
    controller.kill()
    controller.wait()
    ended = execute(path, place)
    made, decided = made_of(path, place), Decisions.read(place)
    by_name = {cell.name: cell for cell in made.cells}
    for step in HALVING["steps"]:
        came = [by_name[each.trial] for each in decided.came if each.step == step]
        rates = [cell.trial.values["optim.learning_rate"] for cell in came]
        on = by_rule(rates, dict(zip(rates, (losses(cell)[step] for cell in came))))
        gone_on = {
            by_name[name].trial.values["optim.learning_rate"] for name, at in decided.gone_on if at == step
        }
        assert on <= gone_on and len(gone_on) <= max(len(on), 1)  # the best goes on where the rule lets none
        assert all((max(losses(cell)) > step) == ((cell.name, step) in decided.gone_on) for cell in came)
    assert {each.trial for each in decided.came if each.step == 4} == set(by_name)
    final = [cell for cell in made.cells if cell.is_final]
    assert ended.censored + len(final) == len(RATES) and made.overall.best in final
    best = made.overall.best
    assert best is not None and best.history is not None
    alone = run_recipe(best.trial.recipe, Options(runs=tmp_path / "alone")).run
    assert outcome(best.history.run) == outcome(alone)


def test_the_same_command_makes_nothing_again(swept: Swept) -> None:
    before = {path: path.read_bytes() for path in swept.place.rglob("*.jsonl")}
    assert execute(swept.path, swept.place) == swept.outcome
    assert {path: path.read_bytes() for path in swept.place.rglob("*.jsonl")} == before


def test_censored_trials_are_marked_in_every_deliverable(swept: Swept) -> None:
    made, report = made_of(swept.path, swept.place), (swept.place / "report" / "report.md").read_text()
    data = json.loads((swept.place / "report" / "report.json").read_text())
    censored = [each for each in data["trials"] if each["state"] == "censored"]
    assert len(censored) == 3 and not any(each["is_final"] for each in censored)
    worst = max(censored, key=lambda each: (-each["step"], each["value"]))
    assert worst["rung"] == {"step": 4, "value": worst["value"], "rank": 4, "of": 4, "gone_on": 2}
    names = [cell.name for cell in made.cells if cell.state == "censored"]
    assert data["models"]["net"]["censored"] == data["models"]["net"]["without_final_value"] == names
    assert "1 of 4, 3 censored" in report and "(censored at 4 steps)" in report
    assert "is 4 of 4 at step 4, from where 2 went on" in report and "of an unfinished schedule" in report
    assert "trials that were left at rungs |" in report and "3 censored trials are no candidates" in report
    assert [each.cell.name for each in made.candidates] == [made.overall.best and made.overall.best.name]


def test_the_plan_says_what_halving_costs(swept: Swept) -> None:
    sweep = load_sweep(swept.path)
    measured = measure(sweep)
    tree = build_tree(measured.planned)
    low, high = foresee_halving(sweep, measured, tree)["steps"]
    assert 4 * 4 + 2 * 4 + 4 <= low <= high < tree.steps_alone == 48
    (line, *_) = forecast_lines(sweep, measured, tree)
    assert line.startswith("trials of a model pause at 4, 8 steps, and about one of 2 goes on: ")
    assert "of 48 for all" in line and not tree.epochs < tree.epochs_alone


def test_a_censored_trial_can_be_trained_to_its_end_by_hand(swept: Swept, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(swept.place, place)
    cell = next(cell for cell in made_of(swept.path, place).cells if cell["step"] == 4)
    assert cell.state == "censored" and cell.history is not None
    assert (
        run_recipe(cell.trial.recipe, Options(runs=place / "runs", resume=cell.history.run)).run.state
        == "finished"
    )
    made = made_of(swept.path, place)
    assert next(each for each in made.cells if each.name == cell.name).is_final
    assert sorted(at.of for at in made.censored.values()) == [3, 4]
