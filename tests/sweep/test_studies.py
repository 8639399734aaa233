"""Searches are studies of Optuna in a file: final values alone are values, and the rest is told as it is."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from etude.errors import InputError, RecipeError
from etude.records.store import Run
from etude.sweep.decisions import Choice
from etude.sweep.deliverables import make_deliverables
from etude.sweep.grid import Trial, load_sweep
from etude.sweep.search import with_found
from etude.sweep.studies import copy_studies, studies_file
from etude.sweep.write import write_deliverables
from tests.processes import wait_for
from tests.recipes import classification
from tests.sweep.journals import Course, f1_of, write_trial
from tests.sweeps import write_sweep

POINT = {"optim.learning_rate": 1e-3, "optim.beta2": 0.999}


def searched(folder: Path, more: dict[str, Any] | None = None) -> Path:
    changes = {"train.steps": 60, "evaluate.every_steps": 10}
    base = classification(Path("rows.jsonl"), None, changes).to_dict()
    del base["name"]
    ranges: list[dict[str, Any]] = [
        {"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2, "log": True},
        {"key": "optim.beta2", "values": [0.95, 0.999]},
    ]
    tier = {"name": "tiny", "models": [{"name": "net"}], "search": ranges}
    values = {"name": "found", "recipe": base, "tiers": [tier], "search": {"trials": 9}, **(more or {})}
    return write_sweep(folder / "sweep.toml", values)


def test_ended_trials_have_values_and_others_their_state(tmp_path: Path) -> None:
    rates = (1e-3, 2e-3, 3e-3, 4e-3, 0.5)  # the last was chosen from a wider range
    choices = [
        Choice("net", n, f"net-search{n}", {"optim.learning_rate": rate, "optim.beta2": 0.999})
        for n, rate in enumerate(rates)
    ]
    sweep = with_found(load_sweep(searched(tmp_path)), choices)
    courses = [Course(60), Course(60, ends=30, action="stop"), Course(60, ends=30, action="fail")]
    runs = {
        trial.name: write_trial(tmp_path / "runs", trial, course)
        for trial, course in zip(sweep.trials, courses)
    }
    made = make_deliverables(sweep, lambda trials: {each.name: runs.get(each.name) for each in trials})
    path = tmp_path / "studies.db"
    path.write_bytes(studies_file(made))
    study = optuna.load_study(study_name="found net", storage=f"sqlite:///{path}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING", "FAIL", "WAITING"]
    best = study.best_trial
    assert best.user_attrs["trial"] == "net-search0" and best.user_attrs["run"] == runs["net-search0"].name
    assert best.value == made.cells[0].value and abs((best.value or 0) - f1_of(courses[0])) < 0.05
    assert best.params == {"optim.learning_rate": 1e-3, "optim.beta2": 0.999}
    assert set(best.intermediate_values) == {10, 20, 30, 40, 50, 60}
    assert study.direction.name == "MAXIMIZE" and study.trials[1].value is None
    assert (write_deliverables(made, tmp_path / "report").parent / "studies.db").exists()


def test_a_trial_that_was_left_at_a_rung_is_pruned_with_its_value_there(tmp_path: Path) -> None:
    choices = [
        Choice("net", n, f"net-search{n}", {"optim.learning_rate": rate, "optim.beta2": 0.999})
        for n, rate in enumerate((1e-3, 2e-3, 3e-3))
    ]
    halving = {"halving": {"steps": [10, 30]}}
    sweep = with_found(load_sweep(searched(tmp_path, halving)), choices)
    courses = [Course(60), Course(60, ends=10, action="stop"), Course(60, ends=20, action="stop")]
    runs = {
        trial.name: write_trial(tmp_path / "runs", trial, course)
        for trial, course in zip(sweep.trials, courses)
    }
    made = make_deliverables(sweep, lambda trials: {each.name: runs.get(each.name) for each in trials})
    (tmp_path / "studies.db").write_bytes(studies_file(made))
    study = optuna.load_study(study_name="found net", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "WAITING"]
    pruned = study.trials[1]
    assert pruned.value == made.cells[1].value == pruned.intermediate_values[10]
    assert set(pruned.intermediate_values) == {10}


@pytest.mark.parametrize("there", ["a link", "a pipe", "another database"])
def test_what_lies_in_the_place_of_the_copy_is_replaced_and_not_read(tmp_path: Path, there: str) -> None:
    made = make_deliverables(
        with_found(load_sweep(searched(tmp_path)), [Choice("net", 0, "net-search0", POINT)]),
        lambda trials: {},
    )
    path, elsewhere = tmp_path / "report" / "studies.db", tmp_path / "elsewhere"
    path.parent.mkdir()
    elsewhere.write_text("of others")
    if there == "a link":
        path.symlink_to(elsewhere)
    elif there == "a pipe":
        os.mkfifo(path)
    else:
        with contextlib.closing(sqlite3.connect(path)) as foreign:
            foreign.execute("CREATE TABLE studies (study_id TEXT)")
            foreign.execute("CREATE TRIGGER act AFTER INSERT ON studies BEGIN SELECT RAISE(ABORT, 'no'); END")
            foreign.execute("PRAGMA user_version = 99")
    write_deliverables(made, path.parent)
    study = optuna.load_study(study_name="found net", storage=f"sqlite:///{path}")
    assert [trial.state.name for trial in study.trials] == ["WAITING"]
    assert not path.is_symlink() and elsewhere.read_text() == "of others"


SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]), None)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL server of its own with an empty database; its password is in PGPASSWORD."""
    pytest.importorskip("psycopg")
    if SERVER is None:
        pytest.skip("needs the server of PostgreSQL")
    who: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}  # the server refuses root
    with (
        socket.socket() as free,
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        free.bind(("127.0.0.1", 0))
        port, folder = free.getsockname()[1], Path(name)
        free.close()
        (folder / "password").write_text("secret-of-the-test\n")
        folder.chmod(0o755)
        (folder / "data").mkdir()
        if who:
            shutil.chown(folder / "data", "nobody")
        patch.setenv("PGPASSWORD", "secret-of-the-test")
        subprocess.run(
            [SERVER / "initdb", "-N", "-D", folder / "data", "-U", "etude", "--auth=scram-sha-256",
             f"--pwfile={folder / 'password'}"], check=True, stdout=subprocess.DEVNULL, cwd="/", **who,
        )  # fmt: skip
        server = subprocess.Popen(
            [SERVER / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder / "data", "-F",
             "-c", "listen_addresses=127.0.0.1"], stderr=subprocess.DEVNULL, cwd="/", **who,
        )  # fmt: skip
        try:
            words = [str(SERVER / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "etude", "studies"]
            wait_for(lambda: subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode == 0)
            yield f"postgresql://etude@127.0.0.1:{port}/studies"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def test_a_database_has_the_studies_of_the_last_report_and_keeps_those_of_others(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [
        Choice("net", n, f"net-search{n}", {"optim.learning_rate": rate, "optim.beta2": 0.999})
        for n, rate in enumerate((1e-3, 2e-3))
    ]
    sweep = with_found(load_sweep(searched(tmp_path)), choices)
    runs = {sweep.trials[0].name: write_trial(tmp_path / "runs", sweep.trials[0], Course(60))}

    def find(trials: Sequence[Trial]) -> dict[str, Run | None]:
        return {each.name: runs.get(each.name) for each in trials}

    storage = optuna.storages.RDBStorage(database.replace("postgresql:", "postgresql+psycopg:"))
    optuna.create_study(study_name="found other", storage=storage)
    copy_studies(make_deliverables(sweep, find), database)
    runs[sweep.trials[1].name] = write_trial(tmp_path / "runs", sweep.trials[1], Course(60, skill=0.8))
    made = make_deliverables(sweep, find)
    for _ in range(2):
        copy_studies(made, database)
    study = optuna.load_study(study_name="found net", storage=storage)
    assert [trial.value for trial in study.trials] == [cell.value for cell in made.cells]
    assert sorted(optuna.get_all_study_names(storage)) == ["found net", "found other"]
    optuna.delete_study(study_name="found net", storage=storage)
    theirs = optuna.create_study(study_name="found net", storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(InputError, match="'found net' that no sweep wrote"):
        copy_studies(made, database)
    assert len(optuna.load_study(study_name="found net", storage=storage).trials) == 1
    storage.engine.dispose()
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    with pytest.raises(InputError, match="took no copy of the searches") as caught:
        copy_studies(made, database)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://etude:secret@host/studies", "sqlite:///a.db", "postgresql://host", "postgresql://host/a?b=c",
     "postgresql://host/a\n"],
)  # fmt: skip
def test_a_database_with_a_password_in_the_file_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RecipeError, match=r"search\.storage"):
        load_sweep(searched(tmp_path, {"search": {"trials": 9, "storage": url}}))
