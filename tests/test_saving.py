"""Runs whose recipe changes while they go on, and that do a step again."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude import durable, saving, session
from etude.control.mailbox import post
from etude.engine import checkpoint
from etude.engine.batch import DeviceBatch
from etude.errors import EtudeError, InputError, RecipeError
from etude.plan import make_plan
from etude.plan.memory import memory_of
from etude.recipe.course import Change
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.events import Attempt, Control, Evaluation, Finding, Resource, Step
from etude.records.store import Run, list_runs
from etude.report.history import read_history
from etude.run import Training, run_recipe
from etude.start import Options
from tests.limited import failing, limited
from tests.processes import Life, wait_for
from tests.programs import run_program
from tests.returning import BACK, ask_back

Make = Callable[..., Recipe]
CHANGES = (
    Change(3, "optim.learning_rate", 1e-3, "it was too high"), Change(3, "schedule.kind", "constant"),
    Change(5, "data.skip_steps", 1), Change(6, "train.micro_batch_size", 2), Change(8, "train.max_grad_norm", 0.1),
)  # fmt: skip


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def bits(run: Run, step: int = 12) -> tuple[bytes, ...]:
    folder = run.checkpoints / f"step-{step:06d}"
    return tuple((folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors"))


def losses(run: Run) -> list[float]:
    return [step.loss for step in events(run, Step)]


def controls(run: Run) -> list[tuple[int, dict[str, Any], int | None]]:
    return [(each.step, each.changes, each.from_step) for each in events(run, Control) if each.changes]


def test_a_run_with_changes_that_is_stopped_anywhere_ends_with_the_same_bits(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"model.dropout": 0.1})
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole", changes=CHANGES)).run
    assert [step.learning_rate for step in events(whole, Step)][3:] == [1e-3] * 9
    assert controls(whole) == [(0, {change.key: change.value}, change.step) for change in CHANGES]
    assert bits(whole) != bits(run_recipe(recipe, Options(runs=tmp_path / "plain")).run)
    for stop_at in (1, 3, 7):
        training = Training(recipe, Options(runs=tmp_path / f"stop{stop_at}", changes=CHANGES))
        for step in training:
            if step.number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        run = run_recipe(recipe, Options(runs=tmp_path / f"stop{stop_at}")).run
        assert (bits(run), losses(run)) == (bits(whole), losses(whole))
        assert controls(run) == controls(whole)
        assert [attempt.from_step for attempt in events(run, Attempt)] == [0, stop_at]


def test_a_change_is_recorded_with_the_value_before_it_and_with_who_asked(
    tmp_path: Path, make_recipe: Make
) -> None:
    asked = Change(4, "optim.learning_rate", 1e-3, "slower", "r-1", "ann@host", "command line")
    changes = (asked, Change(6, "optim.learning_rate", 5e-4), Change(6, "data.skip_steps", 1))
    training = Training(make_recipe(), Options(runs=tmp_path, changes=changes))
    next(iter(training))
    assert [
        (each.before, each.who, each.channel) for each in events(training.run, Control) if each.changes
    ] == [
        ({"optim.learning_rate": 3e-3}, "ann@host", "command line"),
        ({"optim.learning_rate": 1e-3}, None, None),
        ({"data.skip_steps": None}, None, None),
    ]
    assert checkpoint.read_progress(training.run.checkpoints / "step-000000").changes == changes


RHYTHM = (
    Change(3, "train.steps", 15), Change(4, "records.log_every_steps", 2), Change(5, "evaluate.every_steps", 4),
    Change(7, "checkpoint.every_steps", 5), Change(9, "evaluate.patience", 2), Change(11, "train.steps", 18),
)  # fmt: skip


def test_changed_rhythms_hold_from_the_step_after_and_a_stop_leaves_them_as_they_are(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"schedule.kind": "constant", "evaluate.max_samples": 2})
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole", changes=RHYTHM)).run
    logged = [entry.event.step for entry in whole.ledger().entries if isinstance(entry.event, Resource)]
    assert logged == [3, *range(6, 19, 2)]  # by hand: every 3 up to step 4, every 2 from step 5 on
    evaluated = [each.step for each in events(whole, Evaluation)]
    assert evaluated == [8, 12, 16, 18] and len(losses(whole)) == 18
    for stop_at in (4, 10, 13):
        for step in Training(recipe, Options(runs=tmp_path / f"stop{stop_at}", changes=RHYTHM)):
            if step.number == stop_at:
                break
        run = run_recipe(recipe, Options(runs=tmp_path / f"stop{stop_at}")).run
        assert (bits(run, 18), losses(run)) == (bits(whole, 18), losses(whole))
        assert [each.step for each in events(run, Evaluation)] == evaluated
    assert [each.steps for each in read_history(run).attempts] == [18, 18]


def test_a_skipped_step_leaves_its_batch_out(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"optim.learning_rate": 1e-12, "train.steps": 6, "evaluate.every_steps": 6})
    plain = losses(run_recipe(recipe, Options(runs=tmp_path / "plain")).run)
    skipping = Options(runs=tmp_path / "skip", changes=(Change(2, "data.skip_steps", 2),))
    assert losses(run_recipe(recipe, skipping).run)[:4] == pytest.approx([*plain[:2], *plain[4:]], rel=1e-5)


def test_smaller_micro_batches_change_no_loss(tmp_path: Path, make_recipe: Make) -> None:
    plain = run_recipe(make_recipe(), Options(runs=tmp_path / "plain")).run
    change = Change(4, "train.micro_batch_size", 2)
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "changed", changes=(change,))).run
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)


def test_changes_of_the_start_are_saved_before_its_first_step(tmp_path: Path, make_recipe: Make) -> None:
    training = Training(make_recipe(), Options(runs=tmp_path, changes=CHANGES))
    next(iter(training))
    state = json.loads((training.run.checkpoints / "step-000000" / "state.json").read_text())
    assert [change["key"] for change in state["changes"]] == [change.key for change in CHANGES]


def test_a_run_that_lost_its_checkpoints_keeps_the_changes_of_its_start(
    tmp_path: Path, make_recipe: Make
) -> None:
    whole = run_recipe(make_recipe(), Options(runs=tmp_path / "whole", changes=CHANGES)).run
    for step in Training(make_recipe(), Options(runs=tmp_path / "lost", changes=CHANGES)):
        if step.number == 5:
            break
    (run,) = list_runs(tmp_path / "lost")
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").unlink()
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "lost")).run
    assert (bits(run), losses(run), controls(run)) == (bits(whole), losses(whole), controls(whole))


def test_a_run_that_goes_on_takes_no_other_changes(tmp_path: Path, make_recipe: Make) -> None:
    for step in Training(make_recipe(), Options(runs=tmp_path, changes=CHANGES)):
        if step.number == 4:
            break
    (run,) = list_runs(tmp_path)
    before = {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()}
    other = Change(7, "optim.learning_rate", 1e-4)
    with pytest.raises(
        InputError, match=r"without the change of optim.learning_rate after step 7; leave it out"
    ):
        run_recipe(make_recipe(), Options(runs=tmp_path, changes=(other,)))
    assert {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()} == before
    assert run_recipe(make_recipe(), Options(runs=tmp_path, changes=CHANGES[:1])).run.path == run.path


def test_a_change_that_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path: Path, make_recipe: Make
) -> None:
    with pytest.raises(
        RecipeError, match=r"train.micro_batch_size \(change at step 2\) is 3; it must divide"
    ):
        run_recipe(
            make_recipe(), Options(runs=tmp_path / "runs", changes=(Change(2, "train.micro_batch_size", 3),))
        )
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_from_before_there_were_changes_has_none(tmp_path: Path, make_recipe: Make) -> None:
    for step in Training(make_recipe(), Options(runs=tmp_path)):
        if step.number == 4:
            break
    (run,) = list_runs(tmp_path)
    folder = run.checkpoints / "step-000004"
    state, manifest = (json.loads((folder / name).read_text()) for name in ("state.json", "manifest.json"))
    assert state.pop("changes") == []
    written = durable.write_json(folder / "state.json", state)
    manifest["files"]["state.json"] = {"size": written.size, "sha256": written.sha256}
    durable.write_json(folder / "manifest.json", manifest)
    whole = run_recipe(make_recipe(), Options(runs=tmp_path / "whole")).run
    assert bits(run_recipe(make_recipe(), Options(runs=tmp_path)).run) == bits(whole)


def test_a_step_that_does_not_fit_is_done_again_in_smaller_micro_batches(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"train.micro_batch_size": 8, "train.steps": 6, "evaluate.every_steps": 3})
    run = run_recipe(recipe, Options(runs=tmp_path / "limited", loss=limited(3))).run
    small = make_recipe({"train.micro_batch_size": 2, "train.steps": 6, "evaluate.every_steps": 3})
    plain = run_recipe(small, Options(runs=tmp_path / "small", loss=limited(3))).run
    assert losses(run) == pytest.approx(losses(plain), rel=1e-6) and len(losses(run)) == 6
    assert controls(run) == [(0, {"train.micro_batch_size": size}, 0) for size in (4, 2)]
    assert run.recipe.train.micro_batch_size == 8


def test_a_sample_that_does_not_fit_ends_the_run_with_what_to_do(tmp_path: Path, make_recipe: Make) -> None:
    calls = []

    def loss(model: Any, batch: DeviceBatch) -> Any:
        if model.training:  # not in evaluations and in tests before the first step
            calls.append(batch)
        return limited(8 if len(calls) < 5 else 0)(model, batch)

    with pytest.raises(
        EtudeError, match=r"with activation_checkpointing; weights.* what may fit: train.seq_len below 32, or"
    ):
        run_recipe(make_recipe({"train.micro_batch_size": 8}), Options(runs=tmp_path, loss=loss))
    (run,) = list_runs(tmp_path)
    assert run.state == "failed" and len(losses(run)) > 0


def test_the_least_that_has_to_change_is_told_by_a_trace(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"train.micro_batch_size": 8, "train.on_oom": "stop", "evaluate.every_steps": 3})
    options = Options(runs=tmp_path, loss=limited(7))
    room = memory_of(make_plan(recipe, own=options.own), 4).device_bytes
    monkeypatch.setattr("etude.saving.is_traceable", lambda plan: True)  # this loss does no harm
    monkeypatch.setattr("etude.saving.room_for", lambda device, weights: room)
    with pytest.raises(EtudeError, match=r", or train.micro_batch_size=4 \(.* by a trace\), or"):
        run_recipe(recipe, options)


def test_a_rank_without_memory_voids_the_step_on_all_ranks(
    tmp_path: Path, cache: Path, make_recipe: Make
) -> None:
    for name, micro, rank in (("limited", 4, "1"), ("small", 2, "none")):
        recipe = make_recipe({
            "train.micro_batch_size": micro, "train.devices": 2, "train.steps": 6, "evaluate.every_steps": 3
        })  # fmt: skip
        (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
        words = [str(tmp_path / "recipe.json"), str(tmp_path / name), rank]
        done = run_program("limited", words, cache, ranks=2)
        assert done.code == 0, done.err[-2000:]
    (run,), (plain,) = list_runs(tmp_path / "limited"), list_runs(tmp_path / "small")
    assert losses(run) == pytest.approx(losses(plain), rel=1e-6) and len(losses(run)) == 6
    assert controls(run) == [(0, {"train.micro_batch_size": 2}, 0)]


def test_a_step_that_is_done_again_leaves_no_trace_in_weights_and_a_run_that_goes_on_keeps_the_change(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"model.dropout": 0.1, "train.micro_batch_size": 4})
    change = Change(5, "train.micro_batch_size", 2)
    planned = Options(runs=tmp_path / "planned", changes=(change,), loss=failing(-1))
    whole = run_recipe(recipe, planned).run
    run = run_recipe(recipe, Options(runs=tmp_path / "short", loss=failing(12))).run
    assert controls(run) == [(5, {"train.micro_batch_size": 2}, 5)]
    (said,) = (each.reason for each in events(run, Control) if each.changes)
    assert said == "train.micro_batch_size is 2 after step 5: step 6 ran out of memory for a micro-batch"
    assert (bits(run), losses(run)) == (bits(whole), losses(whole))
    training = Training(recipe, Options(runs=tmp_path / "left", loss=failing(12)))
    for step in training:
        if step.number == 7:
            break
    again = run_recipe(recipe, Options(runs=tmp_path / "left", loss=failing(-1))).run
    assert (bits(again), losses(again)) == (bits(whole), losses(whole))
    assert events(again, Attempt)[-1].micro_batch_size == 2


def test_one_sample_without_memory_turns_on_activation_checkpointing(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"model.dropout": 0.1, "train.micro_batch_size": 1})
    run = run_recipe(recipe, Options(runs=tmp_path / "short", loss=failing(20))).run
    quiet = run_recipe(recipe, Options(runs=tmp_path / "quiet", loss=failing(-1))).run
    assert controls(run) == [(2, {"train.activation_checkpointing": True}, 2)]
    assert (bits(run), losses(run)) == (bits(quiet), losses(quiet))


def test_a_smaller_batch_is_made_only_when_asked_and_goes_on_with_the_next_rows(
    tmp_path: Path, make_recipe: Make
) -> None:
    asked = {"train.micro_batch_size": 4, "train.on_oom": "smaller_batch"}
    run = run_recipe(make_recipe(asked), Options(runs=tmp_path / "small", loss=failing(12))).run
    batch, micro = "train.global_batch_size", "train.micro_batch_size"
    assert controls(run) == [(5, {batch: 4}, 5), (5, {micro: 2}, 5)]
    assert [step.samples for step in events(run, Step)] == [8] * 5 + [4] * 7
    (finding,) = (each for each in events(run, Finding) if each.what == "the batch became smaller")
    assert "8 samples a step until step 5, 4 from then on" in finding.evidence
    assert not [each for each in events(run, Finding) if each.kind == "samples_off_plan"]
    with pytest.raises(
        EtudeError, match=r"step 6 ran out of memory for a micro-batch; tried .* train.on_oom ="
    ):
        run_recipe(make_recipe({**asked, "train.on_oom": "stop"}), Options(runs=tmp_path, loss=failing(12)))


def answers(run: Run) -> dict[str | None, str]:
    return {each.request: each.action for each in events(run, Control)}


def test_requests_change_a_run_that_goes_on_and_stop_it_and_the_journal_answers(
    tmp_path: Path, make_recipe: Make
) -> None:
    training, ids = Training(make_recipe(), Options(runs=tmp_path / "asked")), {}
    for step in training:
        if step.number == 5:  # no checkpoint is due here
            ids["set"] = post(training.run, "set", key="optim.learning_rate", value=1e-3, reason="it jumps")
            ids["refuse"] = post(training.run, "set", key="seed", value=3)
        if step.number == 7:
            ids["stop"] = post(training.run, "stop")
    (run,) = list_runs(tmp_path / "asked")
    assert training.ending == Ending("stopped", "it was asked to stop", was_asked=True)
    assert (run.state, answers(run)) == (
        "stopped", {ids["set"]: "change", ids["refuse"]: "refuse", ids["stop"]: "stop"},
    )  # fmt: skip
    assert (run.checkpoints / "step-000005" / "manifest.json").is_file()
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "asked")).run  # the requests are void by now
    change = Change(5, "optim.learning_rate", 1e-3, "it jumps")
    whole = run_recipe(make_recipe(), Options(runs=tmp_path / "whole", changes=(change,))).run
    assert (run.state, bits(run), losses(run)) == ("finished", bits(whole), losses(whole))


def test_a_paused_run_waits_and_goes_on_with_the_same_bits(tmp_path: Path, make_recipe: Make) -> None:
    training, states, ids = Training(make_recipe(), Options(runs=tmp_path / "paused")), [], []

    def go_on() -> None:
        wait_for(lambda: list_runs(tmp_path / "paused") and training.run.state == "paused")
        states.append(training.run.state)
        ids.append(post(training.run, "resume"))

    thread = threading.Thread(target=go_on)
    for step in training:
        if step.number == 3:
            ids.append(post(training.run, "pause"))
            thread.start()
        if step.number == 4:
            states.append(training.run.state)
    thread.join()
    whole = run_recipe(make_recipe(), Options(runs=tmp_path / "whole")).run
    assert states == ["paused", "running"] and bits(training.run) == bits(whole)
    assert answers(training.run) == {ids[0]: "pause", ids[1]: "resume", None: "finish"}


KEPT = {"checkpoint.keep": "all", "checkpoint.every_steps": 2, "model.dropout": 0.1}


def test_a_run_that_goes_back_is_the_run_that_was_changed_there(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe(KEPT)
    training, asked = ask_back(recipe, tmp_path / "asked")
    run, whole = training.run, run_recipe(recipe, Options(runs=tmp_path / "whole", changes=(BACK,))).run
    assert (run.state, bits(run), losses(run)) == ("finished", bits(whole), losses(whole))
    assert run.best == whole.best and len(list(run.checkpoints.iterdir())) == 6
    first, second = events(run, Attempt)
    assert (first.from_step, second.from_step, second.checkpoint) == (0, 4, "step-000004")
    assert [entry.event.step for entry in run.ledger().rework if isinstance(entry.event, Step)] == [
        5,
        6,
        7,
        8,
        9,
    ]
    assert answers(run) == {asked: "back", None: "finish"}
    assert controls(run) == [(4, {BACK.key: BACK.value}, 4)]
    history = json.loads((run.path / "trainer_state.json").read_text())["log_history"]
    assert [each["step"] for each in history if "loss" in each] == [3, 6, 9, 12]


def test_a_run_goes_back_to_before_its_first_evaluation(tmp_path: Path, make_recipe: Make) -> None:
    changes = {**KEPT, "evaluate.every_steps": 6, "train.steps": 10}
    training, _ = ask_back(make_recipe(changes), tmp_path)
    assert [each.step for each in events(training.run, Evaluation)] == [6, 10]
    assert training.run.best and training.run.best["step"] in (6, 10)


def test_a_run_that_is_killed_on_its_way_back_goes_on_unasked_or_has_gone_back(
    tmp_path: Path, cache: Path, make_recipe: Make
) -> None:
    recipe = make_recipe(KEPT)
    plain = run_recipe(recipe, Options(runs=tmp_path / "plain")).run
    changed = run_recipe(recipe, Options(runs=tmp_path / "changed", changes=(BACK,))).run
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    for where, expected in (("removing", plain), ("saving", plain), ("starting", changed)):
        words = [str(tmp_path / "recipe.json"), str(tmp_path / where), where]
        assert run_program("returning", words, cache).code == 9
        run = run_recipe(recipe, Options(runs=tmp_path / where)).run
        assert (bits(run), losses(run)) == (bits(expected), losses(expected)), where
        assert controls(run) == ([] if expected is plain else [(4, {BACK.key: BACK.value}, 4)])


@pytest.mark.parametrize("where", ["saving", "starting"])
def test_a_change_is_kept_until_a_run_has_gone_back_to_before_it(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def remove(*given: Any, **named: Any) -> None:
        checkpoint.remove_unfinished(*given, **named)
        patch.setattr(checkpoint, "safetensors", end)

    first = Change(6, "optim.learning_rate", 2e-3, "it is slow: twice")
    training = Training(make_recipe(KEPT), Options(runs=tmp_path / "asked"))
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        for step in training:
            if step.number == 6:
                post(training.run, "set", key=first.key, value=first.value, reason=first.reason)
            if step.number == 9:
                post(training.run, "back", step=BACK.step, key=BACK.key, value=BACK.value)
                if where == "starting":
                    patch.setattr(session, "write_start", end)
                else:
                    patch.setattr(saving, "remove_unfinished", remove)
    run = run_recipe(make_recipe(KEPT), Options(runs=tmp_path / "asked")).run
    expected = BACK if where == "starting" else first
    whole = run_recipe(make_recipe(KEPT), Options(runs=tmp_path / "whole", changes=(expected,))).run
    assert (bits(run), losses(run)) == (bits(whole), losses(whole))
    from_step = 4 if where == "starting" else 2
    assert controls(run) == [(from_step, {expected.key: expected.value}, expected.step)]


def test_a_run_whose_newer_checkpoints_are_damaged_keeps_the_changes_in_them(
    tmp_path: Path, make_recipe: Make
) -> None:
    change = Change(5, "optim.learning_rate", 1e-3, "it jumps")
    recipe = make_recipe({"checkpoint.keep": "all"})
    training = Training(recipe, Options(runs=tmp_path / "asked"))
    for step in training:
        if step.number == 5:
            asked = post(training.run, "set", key=change.key, value=change.value, reason=change.reason)
        if step.number == 7:
            break
    for folder in training.run.checkpoints.iterdir():
        if folder.name > "step-000004":
            (folder / "state.json").write_text("{}")
    for number in (5, 6):  # which the checkpoints that follow have again
        training = Training(recipe, Options(runs=tmp_path / "asked"))
        next(iter(training))
        state = json.loads((training.run.checkpoints / f"step-00000{number}" / "state.json").read_text())
        signed = {"request": asked, "who": state["changes"][0]["who"], "channel": "python"}
        assert state["changes"] == [{**vars(change), **signed}]
    run = run_recipe(recipe, Options(runs=tmp_path / "asked")).run
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole", changes=(change,))).run
    assert (bits(run), losses(run)) == (bits(whole), losses(whole))
    assert controls(run) == [(4, {change.key: change.value}, 5)]


@pytest.mark.parametrize(
    ("keep", "back_to", "answer"), [("all", 8, "back"), (2, 6, "back"), (2, 4, "refuse")]
)
def test_a_run_goes_back_while_a_checkpoint_is_written_to_what_stays(
    tmp_path: Path,
    make_recipe: Make,
    monkeypatch: pytest.MonkeyPatch,
    keep: int | str,
    back_to: int,
    answer: str,
) -> None:
    write = checkpoint.write_checkpoint

    def write_late(folder: Path, snapshot: checkpoint.Snapshot, is_left: Callable[[], bool]) -> int:
        is_asked.wait(2)  # seconds at most: steps that wait for the one before come first
        return write(folder, snapshot, is_left)

    monkeypatch.setattr(checkpoint, "write_checkpoint", write_late)
    changes = {"checkpoint.every_steps": 2, "checkpoint.keep": keep, "evaluate.every_steps": 12}
    training, is_asked, asked = Training(make_recipe(changes), Options(runs=tmp_path)), threading.Event(), ""
    is_asked.set()
    for step in training:
        if step.number == 7:
            is_asked.clear()
        if step.number == (9 if back_to == 8 else 8) and not asked:
            asked = post(training.run, "back", step=back_to, key=BACK.key, value=BACK.value)
            threading.Timer(0.2, is_asked.set).start()
    assert training.run.state == "finished" and answers(training.run)[asked] == answer


def test_all_ranks_go_back(tmp_path: Path, cache: Path, make_recipe: Make) -> None:
    recipe = make_recipe({**KEPT, "model.dropout": 0.0, "train.devices": 2, "records.log_every_steps": 1})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    done = run_program(
        "returning", [str(tmp_path / "recipe.json"), str(tmp_path / "asked"), "nowhere"], cache, ranks=2
    )
    assert done.code == 0, done.err[-2000:]
    (run,) = list_runs(tmp_path / "asked")
    alone = recipe.model_copy(update={"train": recipe.train.model_copy(update={"devices": 1})})
    whole = run_recipe(alone, Options(runs=tmp_path / "whole", changes=(BACK,))).run
    assert "back" in answers(run).values() and losses(run) == pytest.approx(losses(whole), rel=1e-3)
    assert [step.learning_rate for step in events(run, Step)] == pytest.approx(
        [step.learning_rate for step in events(whole, Step)]
    )


def test_a_signal_to_one_rank_alone_stops_all_of_them(
    tmp_path: Path, cache: Path, write_recipe: Callable[..., Path]
) -> None:
    changes = {
        "train.steps": 400,
        "train.devices": 2,
        "checkpoint.every_steps": 20,
        "evaluate.every_steps": 80,
    }
    life = Life(write_recipe(changes), tmp_path / "runs", cache)
    life.wait_for_progress()
    life.ranks[1].send_signal(signal.SIGTERM)
    assert life.end() == 75
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "stopped" and events(run, Control)[-1].reason == "SIGTERM was received"
