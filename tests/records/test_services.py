"""What services hold of a run that was killed is what its journal holds, and no service holds a run up."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from etude.recipe.schema import Recipe
from etude.records.events import Control, Evaluation, Finding, Step
from etude.records.services import SERVICES
from etude.records.store import Run, create_run, list_runs
from etude.run import Training
from etude.start import Options
from tests.processes import listening

PROGRAM = """
import os, signal, sys
from pathlib import Path
from etude.recipe.load import load_recipe
from etude.run import Training
from etude.start import Options
for step in Training(load_recipe(sys.argv[1]), Options(runs=Path(sys.argv[2]))):
    if step.number == 11:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of Trackio for all tests: its package reads the name once, as it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trackio")
        patch.setenv("TRACKIO_DIR", str(folder))
        yield folder


def test_what_a_kill_lost_is_sent_again_and_nobody_listens(
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    trackio_folder: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv(
        "WANDB_SERVICE", raising=False
    )  # that of an earlier test, where the killed run would live on
    path, runs = (
        write_recipe({"records.trackers": ["tensorboard", "wandb", "mlflow", "trackio"]}),
        tmp_path / "runs",
    )
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, runs], check=False, capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    (run,) = list_runs(runs)
    training = Training(run.recipe, Options(runs=runs, resume=run))
    for _ in training:
        assert listening(psutil.Process()) == []
    steps = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Step)]
    assert run.state == "finished" and len(steps) == 12
    means = {end: mean_loss(steps[end - 3 : end]) for end in (3, 6, 9, 12)}
    scored = {
        entry.event.step: entry.event.loss
        for entry in run.ledger().entries
        if isinstance(entry.event, Evaluation)
    }

    board = EventAccumulator(str(run.path / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == list(means)
    assert [scalar.value for scalar in board.Scalars("train/loss")] == pytest.approx(list(means.values()))
    assert {scalar.step: scalar.value for scalar in board.Scalars("validation/loss")} == pytest.approx(scored)

    last = max((run.path / "wandb").glob("offline-run-*"), key=lambda folder: folder.name)
    rows, summary = history(next(last.glob("*.wandb"))), summaries(next(last.glob("*.wandb")))
    assert {row["_step"]: row["train/loss"] for row in rows if "train/loss" in row} == pytest.approx(means)
    assert {
        row["_step"]: row["validation/loss"] for row in rows if "validation/loss" in row
    } == pytest.approx(scored)
    best = min(scored, key=lambda step: scored[step])
    assert (summary["best/step"], summary["best/loss"]) == pytest.approx((best, scored[best]))

    (tracked,) = mlflow_runs(run)
    assert tracked.info.status == "FINISHED" and tracked.data.params["train.steps"] == "12"
    assert mlflow_history(run, "train/loss") == pytest.approx(means)
    assert mlflow_history(run, "validation/loss") == pytest.approx(scored)
    assert tracked.data.metrics["best/loss"] == pytest.approx(scored[best])

    rows = trackio_rows(trackio_folder, run.info["id"])
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (step, pytest.approx(mean)) for step, mean in means.items()
    ]
    assert {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row} == pytest.approx(
        scored
    )


def test_tensorboard_writes_nothing_twice_when_nothing_was_lost(
    tmp_path: Path, make_recipe: Callable[..., Any]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_recipe({"records.trackers": ["tensorboard"], "evaluate.prompts": ["def "]})
    for step in Training(recipe, Options(runs=tmp_path)):
        if step.number == 7:
            break
    for _ in (training := Training(recipe, Options(runs=tmp_path))):
        pass
    board = EventAccumulator(os.fspath(training.run.path / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == [3, 6, 9, 12]
    assert [scalar.step for scalar in board.Scalars("validation/loss")] == [6, 12]


def test_the_event_file_of_a_later_attempt_is_read_last(
    tmp_path: Path, make_recipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard reads files by name: second, host, process and a count, of which 10 comes before 9."""
    from tensorboard.summary.writer import event_file_writer

    recipe = make_recipe({"records.trackers": ["tensorboard"]})
    counts = iter([9, 10])
    monkeypatch.setattr(event_file_writer._global_uid, "get", lambda: next(counts))
    for last in (3, 12):
        for step in (training := Training(recipe, Options(runs=tmp_path))):
            if step.number == last:
                break
    files = [file.name for file in (training.run.path / "tensorboard").iterdir()]
    assert [name.rsplit(".", 1)[1] for name in sorted(files)] == ["9", "10"]


def test_findings_and_interventions_stand_where_a_service_has_notes_or_alerts_and_refusals_do_not(
    tmp_path: Path, make_recipe: Callable[..., Recipe], trackio_folder: Path
) -> None:
    writer = create_run(tmp_path / "runs", make_recipe())
    for name in ("mlflow", "trackio"):
        service = SERVICES[name](writer.run, writer.run.ledger())
        for event in (
            Finding(3, "loss spike", "loss 9.1 after 2.0", "lower optim.learning_rate"),
            Control(4, "accept", "set: acts after step 4", "a1"),
            Control(4, "change", "optim.learning_rate is 0.001 after step 4: lower", "a1"),
            *(Control(5, "refuse", f"pause: request {number}", f"c{number}") for number in range(100)),
            Control(9, "release", "it was asked to", "b2"),
        ):
            service.write(event)
        service.close()
    (tracked,) = mlflow_runs(writer.run)
    assert tracked.info.status == "KILLED"
    assert tracked.data.tags["mlflow.note.content"].splitlines() == [
        "- step 3: **loss spike** loss 9.1 after 2.0; lower optim.learning_rate",
        "- step 4: **change** optim.learning_rate is 0.001 after step 4: lower",
        "- step 9: **release** it was asked to",
    ]
    assert trackio_table(trackio_folder, "SELECT title, level, step FROM alerts ORDER BY id") == [
        ("loss spike", "warn", 3), ("change", "info", 4), ("release", "info", 9),
    ]  # fmt: skip
    writer.close("paused")


def test_a_service_that_never_answers_costs_no_step_and_is_named_at_the_end(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # which accepts by its backlog, and says nothing
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("etude.records.services._END_SECONDS", 0.2)
        training = Training(make_recipe({"records.trackers": ["mlflow"]}), Options(runs=tmp_path))
        assert len(list(training)) == 12 and training.run.state == "finished"
    said = (training.run.path / "log.txt").read_text("utf-8")
    assert "tracker MLflow failed when it was closed: TimeoutError: " in said
    assert "records could not be sent in 0 s" in said


def mean_loss(steps: list[Step]) -> float:
    return sum(step.loss * step.targets for step in steps) / sum(step.targets for step in steps)


def history(path: Path) -> list[dict[str, Any]]:
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(path)
        if record.HasField("history")
    ]


def summaries(path: Path) -> dict[str, Any]:
    """What a run itself wrote into its summary, the last value of each key."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in wandb_records(path)
        for item in record.summary.update
    }


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: after 7 bytes of header LevelDB's log format, a protobuf record in each
    entry.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several parts
            yield wandb_internal_pb2.Record.FromString(part)
            part = b""


def mlflow_runs(run: Run) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient((run.path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("etude")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def mlflow_history(run: Run, name: str) -> dict[int, float]:
    from mlflow.tracking import MlflowClient

    (found,) = mlflow_runs(run)
    points = MlflowClient((run.path / "mlflow").as_uri()).get_metric_history(found.info.run_id, name)
    assert len({point.step for point in points}) == len(points), "a step was sent twice"
    return {point.step: point.value for point in points}


def trackio_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a run in the database of Trackio, read without its package."""
    found = trackio_table(folder, f"SELECT step, metrics FROM metrics WHERE run_name = '{name}' ORDER BY id")
    return [{"step": step, **json.loads(values)} for step, values in found]


def trackio_table(folder: Path, query: str) -> list[tuple[Any, ...]]:
    import sqlite3

    with contextlib.closing(sqlite3.connect(folder / "etude.db")) as database:
        return database.execute(query).fetchall()
