"""What people are told of a run: of real runs, and of records alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.notify.compose import Composer
from etude.notify.outbox import FILE, read_outbox
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.ledger import Ledger
from etude.records.store import Run
from etude.run import Training, run_recipe
from etude.start import Options
from tests.conftest import Outcome
from tests.notify.server import Service, serving

ALL = ["fault", "finding", "stopped", "session end", "finished", "milestone", "evaluation"]
Make = Callable[..., Recipe]
WEBHOOK = {"notify": [{"channel": "webhook", "on": ALL}]}


def test_a_run_tells_its_milestones_evaluations_and_end_with_figures_and_a_command(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Service()) as service:
        monkeypatch.setenv("ETUDE_WEBHOOK_URL", service.url)
        run = run_recipe(make_recipe(WEBHOOK), Options(runs=tmp_path / "runs")).run
        told = {body["cause"]: body for body in service.bodies}
    assert {"finished", "evaluation 6", "evaluation 12", "half of the steps are made"} <= told.keys()
    last = told["finished"]
    assert last["title"] == f"{run.name}: it is finished: the last step is done"
    assert "step 12 of 12 (100%)" in last["text"] and last["commands"] == [f"etude show {run.path}"]
    assert {"loss", "validation loss", "tokens/s"} <= last["figures"].keys()
    entries = read_outbox(run.path / FILE).values()
    assert len(entries) == len(told) and {each.states["webhook"][0] for each in entries} == {"sent"}


def test_a_run_whose_channel_hangs_has_the_bits_and_records_of_one_without(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.notify.notifier.END_SECONDS", 0.1)  # the pause of a test, not of a run
    with serving(Service(["hang"] * 9)) as service:
        monkeypatch.setenv("ETUDE_WEBHOOK_URL", service.url)
        run = run_recipe(make_recipe(WEBHOOK), Options(runs=tmp_path / "told")).run
        assert len(service.bodies) == 1
    other = run_recipe(make_recipe(), Options(runs=tmp_path / "silent")).run
    for name in ("model.safetensors", "optimizer.safetensors"):
        file = Path("checkpoints") / "step-000012" / name
        assert (run.path / file).read_bytes() == (other.path / file).read_bytes()
    assert run.state == "finished"
    whys = [each.states["webhook"] for each in read_outbox(run.path / FILE).values()]
    assert ("not sent", "the process ended before it went through") in whys


def test_a_run_that_stops_says_how_it_goes_on_and_the_next_attempt_tells_nothing_twice(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Service()) as service:
        monkeypatch.setenv("ETUDE_WEBHOOK_URL", service.url)
        options = Options(runs=tmp_path / "runs")
        training = Training(make_recipe(WEBHOOK), options)
        for step in training:
            if step.number == 7:
                break
        assert service.bodies[-1]["kind"] == "stopped"
        assert service.bodies[-1]["commands"] == [f"etude resume {training.run.path}"]
        run_recipe(make_recipe(WEBHOOK), options)
        causes = [body["cause"] for body in service.bodies]
        assert len(causes) == len(set(causes)) and causes[-1] == "finished"


def test_a_missing_secret_ends_a_resume_before_it_writes_anything(
    write_recipe: Callable[..., Path], etude: Callable[..., Outcome], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    told = write_recipe(WEBHOOK, "told.toml")
    ended = etude("train", told, "--runs", runs)
    assert ended.code == 2 and "ETUDE_WEBHOOK_URL" in ended.err and not runs.exists()


def attempt(number: int = 1, from_step: int = 0) -> events.Attempt:
    return events.Attempt(
        number=number, from_step=from_step, steps=100, steps_per_epoch=10, device="cpu", devices=1,
        precision="fp32", micro_batch_size=1, parameters={"total": 1}, flops_per_token=1.0,
        matrix_flops_per_second=1.0, environment={},
    )  # fmt: skip


def composer(tmp_path: Path, *records: events.Event) -> Composer:
    made = Composer(Run(tmp_path / "my-run"), Ledger([], [], []))
    for record in records:
        made.take(record)
    return made


def test_a_fault_that_comes_back_without_progress_has_one_cause_and_one_after_progress_another(
    tmp_path: Path,
) -> None:
    def cause(from_step: int, reason: str) -> str:
        (message,) = composer(tmp_path, attempt(2, from_step)).take(events.Control(7, "fail", reason))
        assert message.kind == "fault" and message.severity == "error"
        return message.cause

    assert cause(5, "row 17 of 90 is odd") == cause(5, "row 18 of 90 is odd")
    assert cause(5, "row 17 of 90 is odd") != cause(6, "row 17 of 90 is odd")


@pytest.mark.parametrize(
    ("action", "kind"), [("release", "session end"), ("stop", "stopped"), ("finish", "finished")]
)
def test_an_end_is_told_by_its_state_and_not_by_its_words(tmp_path: Path, action: str, kind: str) -> None:
    (message,) = composer(tmp_path, attempt()).take(events.Control(7, action, "the session is a word"))
    assert message.kind == kind


def test_findings_have_the_cause_of_their_kind_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "streng-geheim")
    finding = events.Finding(
        9, "the loss rises", "from 2 to 3 at streng-geheim\x1b[0m", "lower the rate", "error", kind="rise",
        changes={"optim.learning_rate": 1e-4},
    )  # fmt: skip
    made = composer(tmp_path, attempt())
    (first,), (second,) = made.take(finding), made.take(finding)
    assert first.cause == second.cause == "finding rise"
    assert "To do: lower the rate (for example optim.learning_rate = 0.0001)" in first.text
    assert "streng-geheim" not in json.dumps(first.to_dict()) and "\x1b" not in first.text
    assert [each.split()[1] for each in first.commands] == ["show", "stop"]


def test_a_criterion_that_is_met_is_a_milestone_once(tmp_path: Path) -> None:
    made = composer(tmp_path, attempt())
    judged = events.Judgement(9, {"gap below 0.5": 0.4}, ["gap below 0.5"])
    (message,) = made.take(judged)
    assert message.kind == "milestone" and message.title == "my-run: criterion met: gap below 0.5"
    assert made.take(judged) == []


def test_numbers_that_are_none_are_left_out_of_the_figures(tmp_path: Path) -> None:
    step = events.Step(1, 1, float("nan"), 1.0, 1.0, 1, 1, 1.0, 0.0)
    (message,) = composer(tmp_path, attempt(), step).take(events.Control(1, "fail", "it broke"))
    assert message.figures == {} and json.dumps(message.to_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", ["stop", "pause", "go on", "change"])
def test_only_ends_are_told_of_decisions(tmp_path: Path, kind: str) -> None:
    found = composer(tmp_path, attempt()).take(events.Control(3, kind, "it was asked to"))
    assert [each.kind for each in found] == (["stopped"] if kind == "stop" else [])
