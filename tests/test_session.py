"""A session takes up a run where it stands, or refuses before anything is written."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from etude import run
from etude.control.mailbox import post
from etude.engine import checkpoint
from etude.errors import InputError
from etude.recipe.course import Change
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.events import Attempt, Control, Finding
from etude.records.store import Run, list_runs
from etude.report.summary import summarize
from etude.run import Training, run_recipe
from etude.session import begin
from etude.start import Options
from tests.objectives.sessions import begun

Make = Callable[..., Recipe]


def stopped_at(step: int, recipe: Recipe, runs: Path) -> Run:
    training = Training(recipe, Options(runs=runs))
    for done in training:
        if done.number == step:
            break
    return training.run


def test_a_session_takes_up_the_newest_checkpoint_that_is_whole(tmp_path: Path, make_recipe: Make) -> None:
    run = stopped_at(9, make_recipe(), tmp_path)
    (run.checkpoints / "step-000009" / "model.safetensors").write_bytes(b"")
    (run.checkpoints / "step-8.bak").mkdir()
    with begun(make_recipe(), tmp_path) as session:
        assert (session.run.path, session.state.step, session.keeper.saved_step) == (run.path, 8, 8)
        saved = load_file(run.checkpoints / "step-000008" / "model.safetensors")
        weights = session.state.model.state_dict()
        assert saved and all(weights[name].equal(tensor) for name, tensor in saved.items())
        records = [entry.event for entry in session.run.ledger().entries]
    assert [each.from_step for each in records if isinstance(each, Attempt)] == [0, 8]
    found = {each.what: each.evidence for each in records if isinstance(each, Finding)}
    assert "step-000009 is damaged: model.safetensors" in found["damaged checkpoint"]
    assert found["not a checkpoint"] == "step-8.bak in checkpoints"
    assert not (run.checkpoints / "step-000009").exists() and (run.checkpoints / "step-8.bak").exists()


def test_steps_go_on_after_each_change_of_the_course(tmp_path: Path, make_recipe: Make) -> None:
    changes = (Change(2, "train.micro_batch_size", 2), Change(5, "data.skip_steps", 3))
    with begun(make_recipe({"train.steps": 8}), tmp_path, changes=changes) as session:
        steps = list(session.steps())
    assert [step.number for step in steps] == list(range(1, 9)) and session.state.step == 8
    per_epoch = session.plan.steps_per_epoch
    assert [step.epoch for step in steps] == [
        place // per_epoch for place in (0, 1, 2, 3, 4, 8, 9, 10)
    ]  # fmt: skip


def test_requests_are_answered_from_when_a_run_is_held_until_it_is_let_go(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(runs: Path) -> None:
        asked.append(post(list_runs(runs)[0], "set", key="optim.learning_rate", value=1e-3))

    newest, report = checkpoint.newest_valid, run.write_report
    monkeypatch.setattr(checkpoint, "newest_valid", lambda *given: (ask(tmp_path), newest(*given))[1])
    monkeypatch.setattr(run, "write_report", lambda given: (report(given), ask(tmp_path)))
    entries = run_recipe(make_recipe(), Options(runs=tmp_path)).run.ledger().entries
    answers = [(each.event.action, each.event.request) for each in entries if isinstance(each.event, Control)]
    promised = [each for each in answers if each[0] == "accept"]
    assert promised == [("accept", asked[0])]  # before the first step; the last one comes too late
    assert [each for each in answers if each not in promised] == [
        ("change", asked[0]), ("finish", None), ("refuse", asked[1]),
    ]  # fmt: skip
    assert summarize(list_runs(tmp_path)[0])["status"] == "finished"


def test_several_devices_in_one_process_are_refused(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.devices is 2, but the run has 1 rank;"):
        run_recipe(make_recipe({"train.devices": 2}), Options(runs=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_the_ending_is_asked_for_when_the_session_closes(make_recipe: Make, tmp_path: Path) -> None:
    for state in ("failed", "stopped"):
        with contextlib.ExitStack() as stack:
            session = begin(make_recipe(), Options(runs=tmp_path), stack, lambda state=state: Ending(state))
            assert session.run.state == "running"
        assert session.run.state == state
