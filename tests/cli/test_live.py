import io
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from etude.cli.live import LineView, LiveView, open_view
from etude.records.events import CheckpointSaved, Control, Event, Finding
from tests.report.runs import attempt, evaluation, finished_run, window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("etude.cli.live.time.monotonic", lambda: now[0])
    return now


def lines_of(events: list[Event], capsys: pytest.CaptureFixture[str]) -> list[str]:
    view = LineView()
    for event in events:
        view.write(event)
    return capsys.readouterr().err.splitlines()


def losses(lines: list[str]) -> list[str]:
    """The steps whose training loss has a line."""
    return [line.split("  ")[0] for line in lines if "  loss " in line]


def test_the_first_and_the_last_loss_have_a_line_however_fast_a_run_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    events = [attempt(steps=1000)]
    for last in range(10, 1001, 10):
        events += [*window(last - 9, last), evaluation(last, 2.5)]
    lines = lines_of(events, capsys)
    assert losses(lines) == ["step 10", "step 1,000"] == [lines[0].split("  ")[0], lines[-2].split("  ")[0]]
    assert sum("validation loss" in line for line in lines) == 100


def test_a_run_that_stops_early_has_its_last_loss_before_the_reason(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    events = [
        attempt(steps=1000),
        *window(1, 10),
        *window(11, 20),
        Control(20, "stop", "SIGINT was received"),
    ]
    lines = lines_of(events, capsys)
    assert losses(lines) == ["step 10", "step 20"] and lines[-1] == "step 20  stop: SIGINT was received"


def test_an_attempt_that_goes_on_says_from_where(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = attempt(), attempt(2, 10)
    *before, last = lines_of([first, *window(1, 9), second], capsys)
    assert not [line for line in before if "attempt" in line]
    assert last.startswith("attempt 2 continues from step 10: 40 steps")


def test_a_short_run_has_a_line_for_each_loss(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    events = [attempt(steps=6), *(event for step in range(1, 7) for event in window(step, step))]
    assert losses(lines_of(events, capsys)) == [f"step {step}" for step in range(1, 7)]


def test_losses_come_every_three_seconds_then_seldom_and_nothing_else_uses_that_up(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    view = LineView()
    view.write(attempt(steps=20_000))
    shown = []
    for second in range(10_000):
        clock[0] = 1000.0 + second
        view.write(CheckpointSaved(second, "step", 10, 0.1, 0.1))
        view.write(evaluation(second, 2.0))
        for event in window(1 + second, 1 + second):
            view.write(event)
        if losses(capsys.readouterr().err.splitlines()):
            shown.append(second)
    assert shown[:2] == [0, 3] and min(b - a for a, b in pairwise(shown)) == 3
    assert shown[-1] - shown[-2] >= 95


def test_a_line_of_a_loss_says_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = LineView()
    view.show_plan(finished_run(tmp_path), [])
    for event in (attempt(2, 0), *window(1, 20, seconds=30.0)):
        view.write(event)
    assert capsys.readouterr().err.splitlines()[-1].endswith(" tokens/s  over 10 min 00 s left")


def test_a_signal_is_acknowledged_at_once_in_both_views(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    LineView().acknowledge("SIGINT")
    assert capfd.readouterr().err.startswith("Ctrl-C: saves and stops after this step")
    file = io.StringIO()
    view = LiveView(Console(file=file, width=100, height=30, force_terminal=True))
    view.show_plan(finished_run(tmp_path), [])
    view.write(attempt(2, 20))
    view.acknowledge("SIGTERM")
    view.close()
    assert "SIGTERM: saves and stops after this step" in file.getvalue()


def test_a_plan_stands_above_the_picture_which_has_the_device_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path)
    rows = [(name, f"{name} in words") for name in ("model", "data", "steps", "best", "device")]
    view = LiveView(Console(file=io.StringIO(), width=80, height=24))
    view.show_plan(run, rows)
    view.close()
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "run", "model", "data", "steps", "best"
    ]  # fmt: skip
    LineView().show_plan(run, rows)
    assert len(capsys.readouterr().err.splitlines()) == 1 + len(rows)


def test_a_view_of_a_resumed_run_starts_with_its_history(tmp_path: Path) -> None:
    file = io.StringIO()
    view = LiveView(Console(file=file, width=80, height=30, force_terminal=True))
    view.write(attempt())  # before the plan is shown, records are in the journal only
    view.show_plan(finished_run(tmp_path), [("steps", "40 of 8 samples")])
    view.write(attempt(2, 20))
    view.close()
    assert "2.5000 @ 20" in file.getvalue() and "\x1b[?25h" in file.getvalue()


def test_a_view_that_fails_gives_the_terminal_back(tmp_path: Path) -> None:
    file = io.StringIO()
    view = LiveView(Console(file=file, width=80, height=30, force_terminal=True))
    view.show_plan(finished_run(tmp_path), [])
    assert view._progress is not None
    view._progress.pace = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        view.write(attempt())
    assert file.getvalue().rstrip().endswith("\x1b[?25h")
    view.close()


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_view(), LineView)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view(), LineView)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_view(), LiveView)
    monkeypatch.setenv("JPY_PARENT_PID", "1")  # as `!etude train` in a cell has it, with a terminal
    assert isinstance(open_view(), LineView)


def test_a_finding_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding(8, "it rises", "evidence " * 20, "advice " * 20 + "to the end", severity="error")
    LineView().write(finding)
    assert capsys.readouterr().err.endswith("to the end\n")
