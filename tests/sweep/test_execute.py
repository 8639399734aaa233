"""A sweep on one machine: every trial once, whatever is killed, and each as if it had been trained alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from etude.recipe.load import to_toml
from etude.records.store import list_runs
from etude.report.write import write_report
from etude.sweep.decisions import Decisions
from etude.sweep.deliverables import make_deliverables
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.outcome import Outcome, describe_outcome
from etude.sweep.schema import Resources
from tests.conftest import Outcome as Ended
from tests.sweeps import FLAT, execute, make, require_equal, sweep_values, write_sweep


def test_trials_of_a_sweep_equal_trials_alone_and_are_made_once(tmp_path: Path, corpus: Path) -> None:
    path, place, told = make(tmp_path, corpus, {"train.steps": [8, 12]}), tmp_path / "place", list[str]()
    ended = execute(path, place, told)
    assert (ended.finished, ended.trials, ended.given_up) == (2, 2, {})
    assert "12 steps in place of 20" in told[0] and told[-2].endswith("(2 of 2)")
    assert told[-1] == f"report    {place / 'report' / 'report.md'}"
    assert "2 of 2" in (place / "report" / "report.md").read_text()
    require_equal(load_sweep(path), place, tmp_path / "alone")
    before = {run.name: (run.path / "journal.jsonl").read_bytes() for run in list_runs(place / "runs")}
    assert execute(path, place).finished == 2
    assert {
        run.name: (run.path / "journal.jsonl").read_bytes() for run in list_runs(place / "runs")
    } == before


def test_a_trial_that_fails_is_named_and_the_others_go_on(tmp_path: Path, corpus: Path) -> None:
    grid = {"data.train.0.path": [str(corpus), str(tmp_path / "gone.jsonl")]}
    path, told = make(tmp_path, corpus, grid), list[str]()
    ended = execute(path, tmp_path / "place", told)
    (name,) = ended.given_up
    assert ended.finished == 1 and "gone.jsonl" in ended.given_up[name]
    assert told[0].startswith(f"left out  {name}: ") and any(name in line for line in describe_outcome(ended))


def test_a_trial_that_never_fits_is_told_before_anything_starts(tmp_path: Path, corpus: Path) -> None:
    path, told = make(tmp_path, corpus, {"model.n_embd": [32, 4096]}, {"train.steps": 2}), list[str]()
    sweep = load_sweep(path)
    small = sweep.file.model_copy(update={"resources": Resources(memory_gb=1.5)})
    ended = run_sweep(replace(sweep, file=small), SweepFolder(tmp_path / "place"), path, told.append)
    assert ended.finished == 1 and "no device gives more than 1.5 GB" in ended.given_up["net-n-embd4096"]
    assert told[0].startswith("failed    net-n-embd4096: it needs ")


def test_a_finished_trial_with_damaged_records_is_named_and_the_end_tells(
    tmp_path: Path, corpus: Path, etude: Callable[..., Ended]
) -> None:
    path, place = make(tmp_path, corpus, {"train.steps": [2]}), tmp_path / "place"
    assert execute(path, place).is_whole
    (run,) = list_runs(place / "runs")
    assert (
        not (run.path / "report").exists() and write_report(run).exists()
    )  # it is made when it is asked for
    journal = run.path / "journal.jsonl"
    whole = journal.read_bytes()
    cases = {
        whole.replace(b'"evaluation"', b'"evaluatiom"', 1): "1 line of its journal is damaged",
        b"".join(whole.splitlines(keepends=True)[:-1]): "its journal ends before that",
        b"": "its journal ends before that",
    }
    for content, said in cases.items():
        journal.write_bytes(content)
        told: list[str] = []
        ended = execute(path, place, told)
        assert (ended.finished, ended.is_whole) == (1, False)
        (line,) = [line for line in told if line.startswith("damaged   net-steps2: ")]
        assert said in line and line.endswith("without its run folder, etude sweep run trains it again")
        report = (place / "report" / "report.md").read_text()
        assert "Records that are damaged:" in report and told[-1].startswith("report    ")
    assert etude("sweep", "run", path, "--folder", place).code == 1


def test_the_recipe_of_a_trial_is_a_recipe_that_people_train(tmp_path: Path, corpus: Path) -> None:
    sweep, folder = load_sweep(make(tmp_path, corpus, {"train.steps": [2]})), SweepFolder(tmp_path / "place")
    with folder.hold():
        folder.write(sweep)
    assert folder.recipe(sweep.trials[0].name).read_text() == to_toml(sweep.trials[0].recipe)
    assert json.loads((folder.path / "lease.json").read_text())["state"] == "stopped"


def test_a_trial_that_breaks_while_it_runs_is_named_with_its_error(tmp_path: Path, corpus: Path) -> None:
    path, told = (
        make(tmp_path, corpus, {"optim.learning_rate": [1e-3, 1e38]}, {"train.steps": 4}),
        list[str](),
    )
    ended = execute(path, tmp_path / "place", told)
    assert ended.finished == 1 and list(ended.given_up) == ["net-lr1e38"]
    assert "infinite or NaN" in ended.given_up["net-lr1e38"]
    assert any(line.startswith("failed    net-lr1e38: ") and "logs/net-lr1e38.log" in line for line in told)


def test_a_base_recipe_that_changes_while_a_sweep_runs_is_told(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.steps": [4]}, FLAT)
    base = write_sweep(tmp_path / "base.toml", {**values["recipe"], "name": "base"})
    path, told = write_sweep(tmp_path / "sweep.toml", {**values, "recipe": "base.toml"}), list[str]()

    def tell(line: str) -> None:
        told.append(line)
        if line.startswith("starts"):
            base.write_text(base.read_text().replace("seed = 17", "") + "\n# another\n")

    ended = run_sweep(load_sweep(path), SweepFolder(tmp_path / "place"), path, tell)
    assert ended.finished == 1
    assert f"{base} has changed since it was read; the trials go on as they were then" in told


def test_trials_beyond_the_budget_are_named_and_go_on_when_it_is_raised(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [1e-3, 3e-3]}, {**FLAT, "train.steps": 2})
    path, place, told = tmp_path / "sweep.toml", tmp_path / "place", list[str]()
    ended = execute(write_sweep(path, values, {"budget.device_hours": 1e-9}), place, told)
    assert ended.finished == 0 and len(ended.given_up) == 2 and not list_runs(place / "runs")
    assert all(reason.startswith("not started: budget (") for reason in ended.given_up.values())
    assert any("not started: budget" in line for line in describe_outcome(ended))
    made = make_deliverables(load_sweep(path), lambda wanted: {}, Decisions.read(place))
    assert [cell.state for cell in made.cells] == ["not started: budget"] * 2
    price = {"budget.price": 5.0, "budget.price_per_hour": 2.5}
    assert execute(write_sweep(path, values, price), place).finished == 2
    assert not Decisions.read(place).beyond


def test_trials_that_are_given_up_for_one_reason_are_told_together() -> None:
    given_up = {"a": "too large", "b": "its data is gone", "c": "too large"}
    assert describe_outcome(Outcome(1, 4, given_up)) == [
        "1 of 4 trials finished", "not finished: a and 1 more: too large", "not finished: b: its data is gone"
    ]  # fmt: skip
