"""A sweep folder tells the state of its trials by their runs, and whether the sweep is the one it was begun for."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError, StorageError
from etude.recipe.load import with_changes
from etude.records.store import create_run
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep, load_sweep
from tests.sweeps import sweep_values, write_sweep


@pytest.fixture
def sweep(tmp_path: Path, corpus: Path) -> Sweep:
    values = sweep_values(corpus, {"train.steps": [2, 4]})
    return load_sweep(write_sweep(tmp_path / "sweep.toml", values))


def test_the_state_of_a_trial_is_that_of_its_run(tmp_path: Path, sweep: Sweep) -> None:
    folder, (short, long) = SweepFolder(tmp_path / "folder"), sweep.trials
    with folder.hold():
        folder.write(sweep)
        assert folder.read(sweep.trials) == {}
        run_recipe(short.recipe, Options(runs=folder.runs))
        create_run(folder.runs, long.recipe).close("stopped")
        create_run(folder.runs, with_changes(short.recipe, {"seed": 5})).close("stopped")  # of no trial
        (folder.runs / "odd").mkdir()
        states = folder.read(sweep.trials)
    assert states[short.name].is_finished and states[short.name].steps == 2
    assert not states[long.name].is_finished and states[long.name].steps == 0 and states[long.name].is_settled
    assert set(states) == {short.name, long.name}


def test_a_sweep_that_was_broken_off_while_it_began_begins_again(tmp_path: Path, sweep: Sweep) -> None:
    with durable.faults(durable.FaultPlan()) as plan:
        (tmp_path / "whole" / "trials").mkdir(parents=True)
        SweepFolder(tmp_path / "whole").write(sweep)
    for at in range(len(plan.calls)):
        folder = SweepFolder(tmp_path / f"broken{at}")
        (folder.path / "trials").mkdir(parents=True)
        with durable.faults(durable.FaultPlan(at, errno.ENOSPC)), pytest.raises(StorageError):
            folder.write(sweep)
        assert folder.write(sweep) == []
        assert {path.stem for path in (folder.path / "trials").iterdir()} == {
            each.name for each in sweep.trials
        }


@pytest.mark.parametrize(
    "part",
    ["trials", "runs", "logs", "report", "sweep.toml", "trials/net-steps2.toml", "logs/net.log", "runs/x"],
)
def test_a_link_where_the_sweep_writes_is_refused_and_leads_nowhere(
    tmp_path: Path, sweep: Sweep, part: str
) -> None:
    folder, elsewhere = SweepFolder(tmp_path / "folder"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = folder.path / part
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"is a link, where etude keeps .* remove it"), folder.hold():
        pass
    assert not list(elsewhere.iterdir())


def test_a_pipe_where_the_sweep_writes_is_refused(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "folder")
    (folder.path / "logs").mkdir(parents=True)
    os.mkfifo(folder.log("net"))
    with pytest.raises(InputError, match=r"net\.log is no plain file"), folder.hold():
        pass
    assert folder.last_error("net") == "it said nothing"


def test_two_controllers_of_one_folder_are_refused(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "folder")
    again, text = SweepFolder(folder.path), r"is in use by process \d+ on .*; wait for it or stop it"
    with folder.hold(), pytest.raises(InputError, match=text), again.hold():
        pass
    with folder.hold():
        pass


def test_a_sweep_that_changed_is_said_in_words_and_taken_over_when_asked(
    tmp_path: Path, sweep: Sweep
) -> None:
    folder, (short, long) = SweepFolder(tmp_path / "folder"), sweep.trials
    new = replace(
        long, name="net-steps9", recipe=with_changes(long.recipe, {"train.steps": 9, "name": "net-steps9"})
    )
    other = replace(short, recipe=with_changes(short.recipe, {"optim.learning_rate": 1e-5}))
    changed = replace(sweep, trials=(other, new))
    with folder.hold():
        assert folder.write(sweep) == [] and folder.write(sweep) == []
        before = folder.recipe(short.name).read_bytes()
        with pytest.raises(InputError) as error:
            folder.write(changed)
        for text in (
            "net-steps2 has another optim.learning_rate",
            "1 trial new, as net-steps9",
            "1 trial gone, as net-steps4",
        ):
            assert text in str(error.value)
        assert folder.recipe(short.name).read_bytes() == before and "\n" not in str(error.value)
        assert len(folder.write(changed, accept=True)) == 3
        assert folder.write(changed) == []
    assert sorted(path.stem for path in (folder.path / "trials").glob("*.toml")) == [
        "net-steps2",
        "net-steps9",
    ]
