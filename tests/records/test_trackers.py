"""What TensorBoard and Weights & Biases hold of a run that was killed is what its journal holds."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.engine.batch import DeviceBatch
from etude.own import logits
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, CheckpointSaved, Control, Evaluation
from etude.records.ledger import Ledger
from etude.records.services import SERVICES, TensorBoard
from etude.records.store import Run, create_run
from etude.records.trackers import TrainerState, describe
from etude.records.window import OpenWindow
from etude.run import Training
from etude.start import Options
from tests.report.runs import window


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

    monkeypatch.setitem(SERVICES, "tensorboard", refuse)
    training = Training(make_recipe({"records.trackers": ["tensorboard"]}), Options(runs=tmp_path))
    assert len(list(training)) == 12 and training.run.state == "finished"
    said = "tracker tensorboard could not be opened and is off: ConnectionError: no network"
    assert said in capfd.readouterr().err and said in (training.run.path / "log.txt").read_text("utf-8")


@pytest.mark.parametrize("refused", [20, 21, 10_000])
def test_a_flood_of_refusals_is_a_few_lines_and_their_number(refused: int) -> None:
    log = OpenWindow()
    answers = [Control(1, "refuse", f"set {number}", f"r-{number}") for number in range(refused)]
    said = list(filter(None, (describe(each, log) for each in [*answers, *window(1, 5), answers[0]])))
    assert len(said) == 22 and said[18] == "step 1  refuse: set 18"
    assert said[19] == "step 1  refuse: set 19; more until the next losses are counted"
    left = {20: "tokens/s", 21: "tokens/s  1 more request refused"}
    assert said[20].endswith(left.get(refused, "tokens/s  9,980 more requests refused"))
    assert said[21] == "step 1  refuse: set 0"  # of the next window
