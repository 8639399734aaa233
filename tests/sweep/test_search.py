"""A search chooses from what is known alone, so that a kill changes nothing, and learns from what ended."""

import builtins
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from etude.errors import InputError, RecipeError
from etude.records.store import list_runs
from etude.sweep.decisions import FILE, Choice, Decisions
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Study, load_sweep
from etude.sweep.rungs import AtRung
from etude.sweep.search import Known, Searches, choose, foresee, trial_of, with_found
from tests.forking import server
from tests.processes import wait_for
from tests.sweep.journals import Course, write_trial
from tests.sweeps import sweep_values, write_sweep

RATE = {"key": "optim.learning_rate", "low": 1e-4, "high": 1e-1, "log": True}
WIDTH = {"key": "train.steps", "low": 2, "high": 9}


def searched(
    folder: Path,
    corpus: Path,
    ranges: list[dict[str, Any]],
    search: dict[str, Any],
    changes: dict[str, Any] | None = None,
) -> Path:
    """A sweep file with one search and no grid."""
    values = sweep_values(corpus, {}, {"train.steps": 4, "checkpoint.every_steps": 2})
    values["tiers"][0]["search"] = ranges
    return write_sweep(
        folder / "sweep.toml", {**values, "search": search, "resources": {"at_once": 1}}, changes
    )


def study_of(folder: Path, corpus: Path, ranges: list[dict[str, Any]], search: dict[str, Any]) -> Study:
    (study,) = load_sweep(searched(folder, corpus, ranges, search)).studies
    return study


def follow(study: Study, worth: Callable[[dict[str, Any]], float]) -> list[tuple[dict[str, Any], float]]:
    """All trials of a search whose metric is a function."""
    known: list[Known] = []
    for number in range(study.search.trials):
        choice = choose(study, number, known)
        assert choice is not None
        known.append(Known(choice.values, worth(dict(choice.values))))
    return [(dict(each.values), each.worth or 0.0) for each in known]


def bowl(values: dict[str, Any]) -> float:
    """Best at a rate of 3e-3."""
    return -((math.log10(values["optim.learning_rate"]) - math.log10(3e-3)) ** 2)


def test_a_choice_follows_from_its_number_and_what_is_known_alone(tmp_path: Path, corpus: Path) -> None:
    study = study_of(tmp_path, corpus, [RATE, WIDTH], {"trials": 30})
    made = follow(study, bowl)
    assert made == follow(study, bowl)
    known = [Known(values, worth) for values, worth in made]
    for number in (3, 12, 29):  # by a process that knows no sampler of the others
        again = choose(study, number, known[:number])
        assert again is not None and again.values == made[number][0]
    assert len({repr(values) for values, _ in made}) == 30


def test_values_lie_in_their_ranges_and_make_recipes(tmp_path: Path, corpus: Path) -> None:
    kinds = {"key": "schedule.kind", "values": ["constant", "linear"]}
    study = study_of(tmp_path, corpus, [RATE, WIDTH, kinds], {"trials": 20, "sampler": "random"})
    found = [values for values, _ in follow(study, bowl)]
    assert all(1e-4 <= each["optim.learning_rate"] <= 1e-1 for each in found)
    assert {type(each["train.steps"]) for each in found} == {int}
    assert {each["schedule.kind"] for each in found} == {"constant", "linear"}
    below = sum(each["optim.learning_rate"] < 1e-4 * 10**1.5 for each in found)
    assert 5 <= below <= 15  # by factors, half of them lie below the middle one
    trial = study.trial(7, found[7])
    assert trial.recipe.optim.learning_rate == found[7]["optim.learning_rate"]
    assert (trial.name, trial.study, trial.recipe.name) == ("net-search7", "net", "net-search7")


def test_tpe_learns_as_that_of_optuna_and_more_than_chance(tmp_path: Path, corpus: Path) -> None:
    late: dict[str, list[float]] = {}
    for sampler in ("tpe", "random"):
        study = study_of(tmp_path, corpus, [RATE], {"trials": 40, "sampler": sampler})
        late[sampler] = sorted(worth for _, worth in follow(study, bowl)[20:])
    theirs = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=17))
    rate = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    for _ in range(40):
        asked = theirs.ask({"optim.learning_rate": rate})
        theirs.tell(asked, bowl(asked.params))
    reference = sorted(each.value or 0.0 for each in theirs.trials[20:])
    middle = {name: values[10] for name, values in late.items()}
    assert middle["tpe"] > middle["random"] / 3 and middle["tpe"] > 3 * reference[10] - 0.05


def test_trials_under_way_are_kept_away_from_and_failed_ones_are_no_values(
    tmp_path: Path, corpus: Path
) -> None:
    study = study_of(tmp_path, corpus, [RATE], {"trials": 30})
    known = [Known(values, worth) for values, worth in follow(study, bowl)[:20]]
    first = choose(study, 20, known)
    assert first is not None
    failed = choose(study, 20, [*known, Known({"optim.learning_rate": 0.05}, is_out=True)])
    assert failed is not None and failed.values == first.values
    running = choose(study, 20, [*known, Known(first.values)])
    assert running is not None and running.values != first.values


def test_a_search_ends_when_every_value_was_tried(tmp_path: Path, corpus: Path) -> None:
    path = searched(tmp_path, corpus, [{"key": "model.dropout", "values": [0.0, 0.1]}], {"trials": 9})
    sweep = foresee(load_sweep(path))
    assert {trial.values["model.dropout"] for trial in sweep.trials} == {0.0, 0.1} and len(sweep.trials) == 2


def test_values_that_make_no_recipe_together_are_left_out_and_named(tmp_path: Path, corpus: Path) -> None:
    warm = {"key": "schedule.warmup_steps", "low": 0, "high": 3}
    heads = {"key": "model.n_embd", "low": 32, "high": 64}  # only even parts for each head
    path = searched(tmp_path, corpus, [warm, heads], {"trials": 12, "sampler": "random"})
    sweep, told = load_sweep(path), list[str]()
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        decisions = Decisions.read(folder.path)
        chosen = Searches(sweep, folder, decisions, told.append).choose(99, ())
    problems = {choice.trial: choice.problem for choice in decisions.found if choice.problem}
    assert problems and len(chosen) + len(problems) == 12
    assert any(line.startswith("left out  net-search") and "n_embd" in line for line in told)
    with pytest.raises(RecipeError):
        sweep.studies[0].trial(0, {"schedule.warmup_steps": 0, "model.n_embd": 33})


def test_a_search_has_as_many_trials_under_way_as_places(tmp_path: Path, corpus: Path) -> None:
    sweep = load_sweep(searched(tmp_path, corpus, [RATE], {"trials": 5}))
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        searches = Searches(sweep, folder, Decisions.read(folder.path), lambda _: None)
        assert len(searches.choose(2, ())) == 2 and not searches.choose(2, ())
        assert [trial.name for trial in searches.choose(2, ["net-search0"])] == ["net-search2"]
        assert searches.left == {"net": 2}
        assert len(searches.choose(9, ())) == 2 and not searches.left


def test_a_trial_that_waits_at_a_rung_holds_no_place_and_is_learned_from(
    tmp_path: Path, corpus: Path
) -> None:
    sweep = load_sweep(searched(tmp_path, corpus, [RATE], {"trials": 5}))
    folder, at = SweepFolder(tmp_path / "place"), AtRung(0, -3.0, waits=True)
    with folder.hold():
        searches = Searches(sweep, folder, Decisions.read(folder.path), lambda _: None)
        assert len(searches.choose(2, ())) == 2
        assert not searches.choose(2, (), {"net-search0": replace(at, waits=False)})
        assert len(searches.choose(2, (), {"net-search0": at})) == 1
    study = sweep.studies[0]
    values = [{"optim.learning_rate": float(f"{10 ** (-4 + 0.2 * n):.3g}")} for n in range(15)]
    pruned = [Known(each, at=AtRung(0, bowl(each), waits=True)) for each in values]
    found = [choose(replace(study, search=study.search.model_copy(update={"seed": seed})), 15, pruned)
             for seed in range(9)]  # fmt: skip
    assert (
        sorted(bowl(dict(each.values)) for each in found if each)[4] > -0.3
    )  # near the best of those at the rung


def test_values_that_the_file_makes_no_recipe_of_hold_no_place(tmp_path: Path, corpus: Path) -> None:
    study_of(tmp_path, corpus, [RATE], {"trials": 3})
    sweep, folder = load_sweep(tmp_path / "sweep.toml"), SweepFolder(tmp_path / "place")
    with folder.hold():
        decisions = Decisions.read(folder.path)
        for number, rate in enumerate(["a word", -1.0]):
            decisions.add(Choice("net", number, f"net-search{number}", {"optim.learning_rate": rate}))
        (trial,) = Searches(sweep, folder, decisions, lambda line: None).choose(1, ())
    assert trial.name == "net-search2"


def test_choices_that_the_file_has_no_more_are_no_trials_of_it(tmp_path: Path, corpus: Path) -> None:
    study = study_of(tmp_path, corpus, [RATE], {"trials": 2})
    rate = {"optim.learning_rate": 1e-3}
    assert [trial.name for trial in trial_of(study, Choice("net", 1, "net-search1", rate))] == ["net-search1"]
    assert not trial_of(study, Choice("net", 2, "net-search2", rate))
    assert not trial_of(study, Choice("net", 0, "net-search0", {"model.dropout": 0.1}))
    sweep = load_sweep(tmp_path / "sweep.toml")
    assert not with_found(sweep, [Choice("other", 0, "other-search0", rate)]).trials


def test_a_killed_search_gives_the_trials_of_a_quiet_one(tmp_path: Path, corpus: Path) -> None:
    path = searched(tmp_path, corpus, [RATE], {"trials": 4})
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    told: list[str] = []
    ended = run_sweep(load_sweep(path), SweepFolder(quiet), path, told.append)
    assert (ended.finished, ended.trials, ended.given_up) == (4, 4, {})
    assert sum(line.startswith("chosen    net-search") for line in told) == 4
    assert told[-2].endswith("(4 of 4)")
    assert "4 finished" in (quiet / "report" / "report.md").read_text()
    words = ["sweep", "run", str(path), "--folder", str(killed)]
    controller = server().etude(words, stderr=subprocess.DEVNULL)
    wait_for(lambda: (killed / "runs").exists() and len(list_runs(killed / "runs")) > 1, controller)
    controller.kill()
    controller.wait()
    assert run_sweep(load_sweep(path), SweepFolder(killed), path, told.append).finished == 4
    assert (killed / FILE).read_text() == (quiet / FILE).read_text()
    best = {run.name.rpartition("-")[0]: run.best for run in list_runs(quiet / "runs")}
    assert len(best) == 4
    assert {run.name.rpartition("-")[0]: run.best for run in list_runs(killed / "runs")} == best


def test_a_search_beyond_its_budget_chooses_nothing_more_and_goes_on_when_it_is_raised(
    tmp_path: Path, corpus: Path
) -> None:
    place, told = tmp_path / "place", list[str]()
    path = searched(tmp_path, corpus, [RATE], {"trials": 1, "sampler": "random"})
    assert run_sweep(load_sweep(path), SweepFolder(place), path, told.append).finished == 1
    few = {"budget.device_hours": 1e-9}  # which that trial has spent
    searched(tmp_path, corpus, [RATE], {"trials": 4, "sampler": "random"}, few)
    ended = run_sweep(load_sweep(path), SweepFolder(place), path, told.append)
    assert (ended.finished, ended.trials) == (1, 4) and len(list_runs(place / "runs")) == 1
    assert ended.given_up["net-search1"].startswith("not started: budget (")
    assert ended.given_up["net"] == "not started: budget (2 trials not chosen)"
    assert [choice.trial for choice in Decisions.read(place).found] == ["net-search0", "net-search1"]
    more = {"budget.device_hours": 100.0}
    searched(tmp_path, corpus, [RATE], {"trials": 4, "sampler": "random"}, more)
    assert run_sweep(load_sweep(path), SweepFolder(place), path, told.append).finished == 4
    assert not Decisions.read(place).beyond
    # The choices are those of a search that never had a budget, since each follows from its number.
    study, known = load_sweep(path).studies[0], list[Known]()
    for choice in Decisions.read(place).found:
        alone = choose(study, choice.number, known)
        assert alone is not None and alone.values == choice.values
        known.append(Known(choice.values, 0.0))


def test_without_optuna_the_extra_is_named(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, real = study_of(tmp_path, corpus, [RATE], {"trials": 2}), builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"etude-workbench\[search\]"):
        choose(study, 0, [])


def test_values_on_other_rows_choose_nothing_which_is_told_once(tmp_path: Path, corpus: Path) -> None:
    sweep, told = load_sweep(searched(tmp_path, corpus, [RATE], {"trials": 4})), list[str]()
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        searches = Searches(sweep, folder, Decisions.read(folder.path), told.append)
        for trial, rows in zip(searches.choose(2, ()), "vw"):
            write_trial(folder.runs, trial, Course(60), held_out=rows)
        assert len(searches.choose(1, ())) == 1 and len(searches.choose(2, ())) == 1
    said = [line for line in told if "does not compare with net-search0" in line]
    assert len(said) == 1 and "net: net-search1" in said[0]


@pytest.mark.parametrize("name", ["data.validation_ratio", "evaluate.max_samples"])
def test_a_search_over_the_rows_that_measure_is_refused(tmp_path: Path, corpus: Path, name: str) -> None:
    ratio = {"key": name, "values": [1, 2]}
    with pytest.raises(RecipeError, match=r"decides how trials are measured, .* make it a grid"):
        load_sweep(searched(tmp_path, corpus, [ratio], {"trials": 3}))
