"""Runs as a user starts them: from a recipe to a run folder that other tools load."""

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import etude as api
from etude import durable
from etude.engine.batch import DeviceBatch
from etude.errors import InputError, StorageError
from etude.plan import make_plan
from etude.plan.rows import plan_rows
from etude.recipe.load import load_recipe
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Control, Evaluation, Finding, Generation, Note, Step
from etude.records.store import Run, list_runs
from etude.report.summary import summarize
from etude.run import Training, run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.bigram import Bigram, accuracy, bigram_loss
from tests.conftest import Outcome
from tests.forking import server

Make = Callable[..., Recipe]


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def tensors(run: Run, step: int) -> bytes:
    return b"".join(
        (run.checkpoints / f"step-{step:06d}" / name).read_bytes()
        for name in ("model.safetensors", "optimizer.safetensors")
    )


def test_a_short_run_logs_each_step_unless_its_recipe_says_otherwise(
    tmp_path: Path, make_recipe: Make
) -> None:
    def logged(runs: str, every: int | None) -> tuple[Run, list[str]]:
        recipe = make_recipe({"train.steps": 4, "records.log_every_steps": every})
        run = run_recipe(recipe, Options(runs=tmp_path / runs)).run
        lines = (run.path / "log.txt").read_text("utf-8").splitlines()
        return run, [line.split("step ")[1].split()[0] for line in lines if "  loss " in line]

    (short, each), (other, few) = logged("a", None), logged("b", 3)
    assert (each, few) == (["1", "2", "3", "4"], ["3", "4"])
    assert short.recipe.records.log_every_steps == 1  # as resolved.toml has it
    assert make_plan(make_recipe({"train.steps": 101, "records.log_every_steps": None})).log_every_steps == 10
    assert [step.loss for step in events(short, Step)] == [step.loss for step in events(other, Step)]
    assert tensors(short, 4) == tensors(other, 4)


def test_a_run_learns_and_leaves_what_its_contract_names(tmp_path: Path, make_recipe: Make) -> None:
    training = run_recipe(make_recipe({"evaluate.prompts": ["def "]}), Options(runs=tmp_path / "runs"))
    run = training.run
    assert repr(training) == f"training of {run.name}: finished"  # what a cell that trains ends with
    steps, evaluations = events(run, Step), events(run, Evaluation)
    assert [step.step for step in steps] == list(range(1, 13))
    assert evaluations[-1].loss < steps[0].loss - 0.3
    assert [evaluation.step for evaluation in evaluations] == [6, 12]
    assert len(events(run, Generation)) == 2
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "run.json", "lease.json", "recipe.toml", "resolved.toml", "environment.json", "journal.jsonl",
        "journal.index", "log.txt", "checkpoints", "best.json", "trainer_state.json", "report",
    }  # fmt: skip
    assert run.state == "finished"
    assert run.best is not None and run.best["value"] == min(evaluation.loss for evaluation in evaluations)
    history = json.loads((run.path / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "loss" in row] == [3, 6, 9, 12]
    assert all(step.samples == 8 and 7 * 32 < step.targets <= 8 * 32 for step in steps[:3])


def test_a_text_that_gives_fewer_tokens_than_asked_for_is_trained_on_and_that_is_said(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"tokenizer.train_vocab_size": 100_000, "train.steps": 1})
    training = run_recipe(recipe, Options(runs=tmp_path / "runs"))
    resolved = load_recipe(training.run.path / "resolved.toml")
    there = resolved.tokenizer.train_vocab_size
    assert there == resolved.model.vocab_size and there is not None and there < 2000
    said = f"{there:,} tokens, all that the text gives, instead of the 100,000 asked for"
    assert ("tokenizer", said) in plan_rows(make_plan(recipe))
    # The resolved recipe trains the same tokenizer.
    assert make_plan(resolved).corpus.tokenizer.fingerprint == make_plan(recipe).corpus.tokenizer.fingerprint


def test_the_bits_per_byte_are_those_of_transformers_on_the_same_rows(
    tmp_path: Path, make_recipe: Make
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from etude.data.prepared import prepare

    recipe = make_recipe()
    run = run_recipe(recipe, Options(runs=tmp_path)).run
    folder = run.checkpoints / "step-000012"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    validation = prepare(recipe).validation
    assert validation is not None
    nats = 0.0
    for index in range(len(validation)):
        sample = validation.sample(index)
        logits = model(torch.from_numpy(sample.tokens)[None]).logits[0]
        nats += nn.functional.cross_entropy(logits, torch.from_numpy(sample.labels), reduction="sum").item()
    (last,) = events(run, Evaluation)[-1:]
    assert last.loss == pytest.approx(nats / validation.spans.targets, rel=1e-5)
    assert last.bits_per_byte == pytest.approx(nats / 0.6931471805599453 / validation.spans.bytes, rel=1e-5)
    assert tokenizer.decode(tokenizer("def total(x):")["input_ids"]) == "def total(x):"


def test_a_stopped_run_is_continued_by_the_same_call_bit_for_bit(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"model.dropout": 0.1})
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    for stop_at in (1, 6, 11):
        runs = tmp_path / f"stop{stop_at}"
        training = Training(recipe, Options(runs=runs))
        for step in training:
            if step.number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        assert (training.ending.reason, training.ending.is_resumable) == ("SIGTERM was received", True)
        assert training.run.state == "stopped"
        continued = run_recipe(recipe, Options(runs=runs)).run
        assert continued.path == training.run.path
        assert tensors(continued, 12) == tensors(whole, 12)
        assert [step.loss for step in events(continued, Step)] == [step.loss for step in events(whole, Step)]
        assert [attempt.from_step for attempt in events(continued, Attempt)] == [0, stop_at]


def test_breaking_out_of_the_loop_saves(tmp_path: Path, make_recipe: Make) -> None:
    training = Training(make_recipe(), Options(runs=tmp_path))
    for step in training:
        if step.number == 3:
            break
    assert (
        training.ending.is_resumable
        and (training.run.checkpoints / "step-000003" / "manifest.json").is_file()
    )


def test_early_stopping_keeps_the_best_and_ends_as_finished(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({
        "train.steps": 60, "optim.learning_rate": 1.0, "schedule.kind": "constant", "evaluate.every_steps": 3,
        "evaluate.patience": 2, "checkpoint.keep": 2,
    })  # fmt: skip
    training = run_recipe(recipe, Options(runs=tmp_path))
    run = training.run
    losses = [evaluation.loss for evaluation in events(run, Evaluation)]
    best = losses.index(min(losses))
    assert training.ending.reason == "no improvement in 2 evaluations" and not training.ending.is_resumable
    assert run.state == "finished" and len(losses) == best + 3
    ended = f"Ended early at step {3 * len(losses)} of 60: no improvement in 2 evaluations."
    report = (run.path / "report" / "report.md").read_text("utf-8")
    assert summarize(run)["end"] == ended and ended in report
    assert "finish: no improvement in 2 evaluations" in report
    assert run.best is not None and run.best["step"] == 3 * (best + 1)
    assert (run.checkpoints / run.best["checkpoint"] / "manifest.json").is_file()


def test_without_validation_best_is_by_training_loss_and_marked_so(tmp_path: Path, make_recipe: Make) -> None:
    run = run_recipe(make_recipe({"data.validation": "none"}), Options(runs=tmp_path)).run
    assert run.best is not None and run.best["metric"] == "training loss"
    assert events(run, Evaluation) == []


@pytest.mark.parametrize(("samples", "steps"), [(5, 1), (8, 1), (100, 13)])
def test_few_samples_train_and_the_last_partial_step_too(
    tmp_path: Path, make_recipe: Make, samples: int, steps: int
) -> None:
    path = write_corpus(tmp_path / "few.jsonl", samples)
    recipe = make_recipe({
        "data.train.0.path": str(path), "data.validation": "none", "data.sample": "document",
        "train.seq_len": 128,
    })  # fmt: skip
    values = recipe.to_dict()
    del values["train"]["steps"]
    values["train"]["epochs"] = 2
    run = run_recipe(Recipe.model_validate(values), Options(runs=tmp_path / "runs")).run
    counts = [step.samples for step in events(run, Step)]
    assert len(counts) == 2 * steps and sum(counts) == 2 * samples


def test_changed_data_is_refused_and_touched_data_is_not(
    tmp_path: Path, make_recipe: Make, corpus: Path
) -> None:
    recipe = make_recipe()
    for step in Training(recipe, Options(runs=tmp_path / "runs")):
        if step.number == 4:
            break
    before = corpus.read_bytes()
    corpus.write_bytes(before.replace(b"0", b"1", 1))
    with pytest.raises(InputError, match=r"the data of run tiny-\w+ has changed .* --new"):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))
    corpus.write_bytes(before)
    assert run_recipe(recipe, Options(runs=tmp_path / "runs")).run.state == "finished"


def test_a_full_disk_is_named_and_the_same_call_works_once_there_is_room(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe()
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    with durable.faults(durable.FaultPlan()) as plan:
        run_recipe(recipe, Options(runs=tmp_path / "count"))
    writes = len(plan.calls)
    for at in range(12, writes, max(writes // 6, 1)):
        runs = tmp_path / f"full{at}"
        with (
            durable.faults(durable.FaultPlan(at, errno.ENOSPC, once=False)),
            pytest.raises(StorageError, match="disk is full"),
        ):
            run_recipe(recipe, Options(runs=runs))
        continued = run_recipe(recipe, Options(runs=runs)).run
        assert tensors(continued, 12) == tensors(whole, 12)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe()
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    for step in Training(recipe, Options(runs=tmp_path / "runs")):
        if step.number == 10:
            break
    (run,) = list_runs(tmp_path / "runs")
    path = run.checkpoints / "step-000010" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    (finding,) = [finding for finding in events(run, Finding) if finding.what == "damaged checkpoint"]
    assert finding.evidence == "checkpoint step-000010 is damaged: model.safetensors is not what was written"
    assert [attempt.from_step for attempt in events(run, Attempt)] == [0, 8]
    assert tensors(run, 12) == tensors(whole, 12)


def test_weights_of_another_run_start_a_new_one(tmp_path: Path, make_recipe: Make) -> None:
    first = run_recipe(make_recipe(), Options(runs=tmp_path)).run
    second = run_recipe(make_recipe({"seed": 18}), Options(runs=tmp_path, weights=f"{first.name}@best")).run
    assert second.info["parent"] == first.name
    assert events(second, Step)[0].loss < events(first, Step)[0].loss - 0.3
    with pytest.raises(InputError, match="has no checkpoint step-000009; it has step-"):
        run_recipe(make_recipe({"seed": 19}), Options(runs=tmp_path, weights=f"{first.name}@step-9"))


def breaks_after(calls: int) -> Callable[..., float]:
    """A metric that works so often, and then no more."""
    done = []

    def broken(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
        done.append(1)
        if len(done) > calls:
            raise RuntimeError("metric broke")
        return 0.0

    return broken


def test_own_module_loss_and_metric_train_through_the_api(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe(
        {"evaluate.metric": "accuracy", "optim.learning_rate": 0.1, "schedule.kind": "constant"}
    )
    torch.manual_seed(0)
    options = api.Options(runs=tmp_path, model=Bigram(), loss=bigram_loss, metrics={"accuracy": accuracy})
    training = api.Training(recipe, options)
    numbers = [step.number for step in training]
    assert numbers == list(range(1, 13))
    evaluations = events(training.run, Evaluation)
    assert evaluations[-1].metrics["accuracy"] > 0.05
    assert training.run.best is not None and training.run.best["metric"] == "accuracy"
    assert training.run.best["value"] == max(evaluation.metrics["accuracy"] for evaluation in evaluations)
    assert set(training.run.environment["own_code"]) == {"model", "loss", "metric accuracy"}
    assert "bigram.bigram_loss" in training.run.environment["own_code"]["loss"]


def test_a_failing_metric_loses_no_step(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe()
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    with pytest.raises(InputError, match=r"your metric broken failed at .*: metric broke"):
        run_recipe(recipe, Options(runs=tmp_path / "runs", metrics={"broken": breaks_after(1)}))
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "failed" and (run.checkpoints / "step-000006" / "manifest.json").is_file()
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert [evaluation.step for evaluation in events(run, Evaluation)] == [6, 12]
    assert tensors(run, 12) == tensors(whole, 12)


def test_a_failing_last_evaluation_is_made_up_for_and_names_the_best(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"evaluate.every_steps": 12})
    with pytest.raises(InputError, match=r"your metric broken failed at .*: metric broke"):
        run_recipe(recipe, Options(runs=tmp_path, metrics={"broken": breaks_after(1)}))
    run = run_recipe(recipe, Options(runs=tmp_path)).run
    assert [evaluation.step for evaluation in events(run, Evaluation)] == [12]
    assert run.best is not None and run.best["checkpoint"] == "step-000012"


def test_fp16_survives_a_restart_bit_for_bit(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"train.precision": "fp16", "train.steps": 6})
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    for step in Training(recipe, Options(runs=tmp_path / "runs")):
        if step.number == 3:
            break
    assert tensors(run_recipe(recipe, Options(runs=tmp_path / "runs")).run, 6) == tensors(whole, 6)


# The command line


def command(*words: object, cache: Path, **environment: str) -> subprocess.Popen[str]:
    return server().etude(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ETUDE_CACHE": str(cache), **environment}, start_new_session=True,
    )  # fmt: skip


def descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def wait_for_step(runs: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(
            int(path.name[5:]) >= step for run in list_runs(runs) for path in run.checkpoints.glob("step-*")
        ):
            return
        time.sleep(0.02)
    raise AssertionError("the run did not get going")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_stops_with_75_and_prints_how_to_go_on(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path, number: int
) -> None:
    recipe = write_recipe({"train.steps": 3000, "checkpoint.every_steps": 10})
    process = command("train", recipe, "--runs", tmp_path / "runs", cache=cache)
    wait_for_step(tmp_path / "runs", 10)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    (run,) = list_runs(tmp_path / "runs")
    assert process.returncode == 75 and f"etude resume {run.path}" in err
    assert run.state == "stopped"
    (control,) = events(run, Control)
    assert (
        control.step
        == events(run, Step)[-1].step
        == int(max(path.name for path in run.checkpoints.iterdir())[5:])
    )


def test_a_second_signal_stops_at_once(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 3000, "checkpoint.every_steps": 10})
    process = command("train", recipe, "--runs", tmp_path / "runs", cache=cache)
    wait_for_step(tmp_path / "runs", 10)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (75, 130)


def test_devices_starts_ranks_that_train_alike_stop_together_and_leave_nothing(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 400, "checkpoint.every_steps": 20, "evaluate.every_steps": 100})
    process = command("train", recipe, "--runs", tmp_path / "runs", "--devices", 2, cache=cache)
    wait_for_step(tmp_path / "runs", 20)
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "stopped" and events(run, Attempt)[0].devices == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize("changes", [{"model.dropout": 0.1}, {"optim.kind": "muon"}], ids=str)
def test_a_run_loads_neither_a_compiler_nor_transformers(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path, changes: dict[str, Any]
) -> None:
    recipe = write_recipe({**changes, "train.steps": 2})
    program = (
        f"import sys; sys.argv = ['etude', 'train', {str(recipe)!r}, '--runs', {str(tmp_path / 'runs')!r}]\n"
        "from etude.cli.main import app\n"
        "try:\n    app()\nfinally:\n"
        "    print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'transformers'} & set(sys.modules)))"
    )
    done = server().start(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ETUDE_CACHE": str(cache)},
    )  # fmt: skip
    out, err = done.communicate()
    assert out.splitlines()[-1] == "[]", err


def test_note_and_trackers_are_kept(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Callable[..., Outcome]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = write_recipe({"records.trackers": ["tensorboard"]})
    done = etude("train", recipe, "--runs", tmp_path / "runs")
    assert done.code == 0, done.err
    (run,) = list_runs(tmp_path / "runs")
    assert etude("note", run.path, "--section", "lessons", "small works").code == 0
    assert [note.text for note in events(run, Note)] == ["small works"]
    board = EventAccumulator(str(run.path / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == [3, 6, 9, 12]
    assert [scalar.value for scalar in board.Scalars("validation/loss")] == pytest.approx(
        [evaluation.loss for evaluation in events(run, Evaluation)]
    )


def test_wandb_offline_is_resumed_into_the_same_run(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = make_recipe({"records.trackers": ["wandb"], "train.steps": 6})
    for step in Training(recipe, Options(runs=tmp_path)):
        if step.number == 3:
            break
    run = run_recipe(recipe, Options(runs=tmp_path)).run
    folders = list((run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(run.info["id"]) for folder in folders)
    assert not [line for line in (run.path / "log.txt").read_text().splitlines() if "tracker" in line]
