"""The execution of a run for a person: its last lines and exit codes."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from etude.cli.execute import describe_rest, start_ranks, tell_ranks, train_here
from etude.cli.live import LineView
from etude.launch.ranks import Ended
from etude.recipe.schema import Recipe
from etude.records.events import Event, Resource
from etude.records.folder import list_checkpoints
from etude.records.store import list_runs
from etude.start import Options
from tests.report.runs import attempt, new_run, window

Make = Callable[..., Recipe]


def test_a_run_in_this_process_ends_with_its_verdict_and_what_to_type_next(
    tmp_path: Path, make_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    start_ranks(make_recipe())  # one device needs none
    ended = train_here(make_recipe({"train.steps": 1}), Options(runs=tmp_path / "runs"))
    assert ended.run is not None
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("tiny: prepares the data")
    path = ended.run.path
    assert [line for line in lines if line.startswith("Finished 1 step, ")]
    assert lines[-5:] == [
        "best    step-000001, validation loss " + f"{ended.run.best['value']:.4f}" if ended.run.best else "",
        f"report  {path / 'report' / 'report.md'}",
        f"next    etude show {path}",
        f"        etude generate {path} --prompt 'def '",
        f"        etude export {path} --to hf exported",
    ]


class Interrupts(LineView):
    """A view in which Ctrl-C is pressed when the third step is logged."""

    number = signal.SIGINT

    def write(self, event: Event) -> None:
        super().write(event)
        if isinstance(event, Resource) and event.step == 3:
            signal.raise_signal(self.number)


def test_ctrl_c_is_acknowledged_and_the_step_that_was_saved_stands_before_what_continues(
    tmp_path: Path,
    make_recipe: Make,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("etude.cli.live.open_view", lambda **_: Interrupts())
    runs = tmp_path / "runs"
    with pytest.raises(typer.Exit) as caught:
        train_here(make_recipe({"checkpoint.every_steps": 2}), Options(runs=runs))
    (run,) = list_runs(runs)
    lines = capfd.readouterr().err.splitlines()
    assert caught.value.exit_code == 75 and list_checkpoints(run.checkpoints)[-1].name == "step-000003"
    assert [line for line in lines if line.startswith("Ctrl-C: saves and stops after this step")]
    assert lines[-3:] == [
        "step 3  stop: Ctrl-C was received",
        "stopped; saved at step 3",
        f"continue with: etude resume {run.path}",
    ]


def test_a_run_that_ends_as_paused_is_said_to_be_paused(
    tmp_path: Path, make_recipe: Make, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupts, "number", signal.SIGUSR1)
    monkeypatch.setattr("etude.cli.live.open_view", lambda **_: Interrupts())
    with pytest.raises(typer.Exit) as caught:
        train_here(make_recipe(), Options(runs=tmp_path / "runs"))
    lines = capfd.readouterr().err.splitlines()
    assert caught.value.exit_code == 75 and list_runs(tmp_path / "runs")[0].state == "paused"
    assert lines[-2] == "paused; saved at step 3"


class Interrupted(Interrupts):
    """A view in which it is pressed twice."""

    def write(self, event: Event) -> None:
        super().write(event)
        if isinstance(event, Resource) and event.step == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("every", "words"), [(2, "saved at step 2"), (40, "nothing is saved yet")])
def test_a_second_ctrl_c_says_the_step_that_is_saved(
    every: int, words: str, tmp_path: Path, make_recipe: Make, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("etude.cli.live.open_view", lambda **_: Interrupted())
    recipe = make_recipe({"checkpoint.every_steps": every, "data.validation": "none"})
    with pytest.raises(KeyboardInterrupt):
        train_here(recipe, Options(runs=tmp_path / "runs"))
    assert capfd.readouterr().err.splitlines()[-1] == words


def test_ranks_that_fail_end_the_command_with_their_code_and_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_ranks(Ended(0))
    with pytest.raises(typer.Exit) as caught:
        tell_ranks(Ended(75, "rank 1 was killed"))
    assert caught.value.exit_code == 75 and capsys.readouterr().err == "rank 1 was killed\n"


def test_a_resume_begins_with_the_steps_that_are_made_and_the_time_that_is_left(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    assert describe_rest(writer.run) == ""
    writer.append(attempt(), *window(1, 10))
    writer.close("stopped")
    said = describe_rest(writer.run)
    assert (
        said.startswith(f"{writer.run.name}: step 10 of 40 is made; ") and " left at the pace so far" in said
    )
