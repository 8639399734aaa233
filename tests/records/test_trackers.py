"""What TensorBoard and Weights & Biases hold of a run that was killed is what its journal holds."""

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.engine.batch import DeviceBatch
from etude.own import logits
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, CheckpointSaved, Evaluation, Step
from etude.records.ledger import Ledger
from etude.records.store import Run, create_run, list_runs
from etude.records.trackers import TensorBoard, TrainerState, describe
from etude.records.window import OpenWindow
from etude.run import Training
from etude.start import Options
from tests.processes import listening
from tests.report.runs import window

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


def read_loss(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """A loss whose labels are not shifted."""
    scored = batch.labels != -100
    rows = logits(model, batch)[scored].float()
    return cross_entropy(rows, batch.tokens[scored], reduction="sum"), scored.sum()


def test_a_loop_in_python_is_told_what_the_watch_finds(
    make_recipe: Callable[..., Recipe], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in Training(make_recipe(), Options(runs=tmp_path, loss=read_loss)):
        break
    told = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
    start = "step 0  error: the loss asks for the token that the model reads: "
    assert [each[:2] for each in told if each[2].startswith(start)] == [("etude", "WARNING")]


def test_what_a_kill_lost_is_sent_again_and_nobody_listens(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(
        "WANDB_SERVICE", raising=False
    )  # that of an earlier test, where the killed run would live on
    path, runs = write_recipe({"records.trackers": ["tensorboard", "wandb"]}), tmp_path / "runs"
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


def test_skipped_steps_are_counted_wherever_their_loss_is_left_out(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = create_run(tmp_path / "runs", make_recipe())
    state, board = TrainerState(writer.run, writer.run.ledger()), TensorBoard(writer.run, writer.run.ledger())
    log = OpenWindow()
    said = []
    for event in [*window(1, 5), *window(6, 10, bad=(7, 8)), CheckpointSaved(10, "step-000010", 1, 0.1, 0.1)]:
        state.write(event)
        board.write(event)
        said.append(describe(event, log) or "")
    board.close()
    assert said[5].endswith("tokens/s") and said[11].endswith("tokens/s  2 of 5 steps skipped")
    history = json.loads((writer.run.path / "trainer_state.json").read_text())["log_history"]
    assert [entry.get("skipped_steps") for entry in history] == [None, 2]
    assert math.isfinite(history[1]["loss"])
    read = EventAccumulator(str(writer.run.path / "tensorboard"))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("train/skipped_steps")] == [(5, 0), (10, 2)]
    writer.close("stopped")


def test_the_trainer_state_is_read_by_transformers_with_an_epoch_in_every_entry(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    from transformers import TrainerState

    training = Training(make_recipe({"evaluate.every_steps": 4}), Options(runs=tmp_path))
    run = [*training] and training.run
    state = TrainerState.load_from_json(str(run.path / "trainer_state.json"))
    (per_epoch,) = {e.event.steps_per_epoch for e in run.ledger().entries if isinstance(e.event, Attempt)}
    assert (state.global_step, state.max_steps, state.epoch) == (12, 12, 12 / per_epoch)
    assert state.num_train_epochs == -(-12 // per_epoch)
    assert {entry["step"]: entry["epoch"] for entry in state.log_history} == {
        step: step / per_epoch for step in (3, 4, 6, 8, 9, 12)
    }
    assert all(isinstance(entry["epoch"], float) for entry in state.log_history)
    scored = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Evaluation)]
    assert [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry] == [
        e.loss for e in scored
    ]
    best = min(scored, key=lambda each: each.loss)
    assert (state.best_metric, state.best_global_step) == (best.loss, best.step)
    assert state.best_model_checkpoint and Path(state.best_model_checkpoint).is_dir()


def test_a_tracker_that_cannot_be_opened_is_named_and_the_run_goes_on(
    tmp_path: Path,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(run: Run, ledger: Ledger) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("etude.records.trackers.TensorBoard", refuse)
    training = Training(make_recipe({"records.trackers": ["tensorboard"]}), Options(runs=tmp_path))
    assert len(list(training)) == 12 and training.run.state == "finished"
    said = "tracker tensorboard could not be opened and is off: ConnectionError: no network"
    assert said in capfd.readouterr().err and said in (training.run.path / "log.txt").read_text("utf-8")


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
