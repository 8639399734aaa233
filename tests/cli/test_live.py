import io
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from etude.cli.live import LineView, LiveView, Progress, draw, open_view
from etude.records.events import Control, Evaluation, Event, Finding, Generation, Step
from tests.report.runs import attempt, evaluation, finished_run, window


def records() -> list[Event]:
    return [
        attempt(), *window(1, 5), *window(6, 10), evaluation(10, 2.75),
        Generation(10, "def ", "f(\x1b[2J):\n\tpass", {}),
        Finding(10, "non-finite step", "loss nan", "lower it"), *window(11, 15),
        evaluation(15, 3.0, best=False),
    ]  # fmt: skip


def picture(progress: Progress, width: int, height: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, height=height, color_system=None)
    console.print(draw(progress, console))
    file.seek(0)
    return file.read()


def test_the_model_that_was_given_is_never_the_best() -> None:
    progress = Progress()
    for event in (attempt(), evaluation(0, 1.0, best=False), *window(1, 5), evaluation(5, 2.0)):
        progress.write(event)
    assert progress.best is not None and progress.best.step == 5


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10)])
def test_the_picture_holds_the_figures_and_fits(width: int, height: int) -> None:
    progress = Progress("small-123456")
    for event in records():
        progress.write(event)
    text = picture(progress, width, height)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "\x1b" not in text and "f(\\x1b[2J):" in text
    for figure in ("small-123456", "3.0000", "2.7500 @ 10", "0.001", "25.0 %", "1.0 GB", "non-finite step"):
        assert figure in text
    if width >= 80:
        assert "15 / 40" in text and "38 %" in text and "◆" in text
        assert len(text.splitlines()) <= height


def test_a_terminal_without_such_characters_gets_no_curve() -> None:
    progress = Progress("x")
    for event in records():
        progress.write(event)
    assert "training loss" not in picture(progress, 80, 24, "ascii")


def test_the_rest_is_the_median_step_and_the_share_of_evaluations() -> None:
    progress = Progress("x")
    progress.write(attempt())
    for event in window(1, 10, seconds=100.0):
        progress.write(event)
    assert progress.remaining() == pytest.approx(30 * 100.0, abs=1)
    assert progress.eta() == "over 50 min 00 s left"
    progress.write(Evaluation(10, 2.0, 7.4, None, 10, 500.0, True))
    assert progress.remaining() == pytest.approx(30 * (100.0 + 500.0 / 10), abs=1)
    progress.write(Step(11, 0, 2.0, 1.0, 1e-3, 100, 8, 9999.0, 0.0))
    assert progress.remaining() == pytest.approx(29 * (100.0 + 500.0 / 11), abs=1)


def test_a_restart_takes_back_what_no_longer_counts() -> None:
    progress = Progress("x")
    for event in [*records(), Control(15, "stop", "SIGINT"), attempt(2, 5)]:
        progress.write(event)
    assert (progress.step, [step for step, _ in progress.losses]) == (5, [5])
    assert progress.remaining() is None and progress.control is None
    assert "attempt 2 from step 5" in picture(progress, 80, 24)


def test_off_a_terminal_decisions_always_show_and_log_lines_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("etude.cli.live.time.monotonic", lambda: clock[0])
    view = LineView()
    for event in [*records(), Control(15, "stop", "SIGINT was received")]:
        view.write(event)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "attempt 1 starts: 40 steps, 1,000 parameters, cpu, fp32, micro-batch 4", *["step 10"] * 3,
        *["step 15"] * 2,
    ]  # fmt: skip
    shown = []
    for second in range(10_000):
        clock[0] = 1000.0 + second
        for event in window(16 + second, 16 + second):
            view.write(event)
        if capsys.readouterr().err:
            shown.append(second)
    assert shown[0] == 3 and min(b - a for a, b in pairwise(shown)) == 3
    assert shown[-1] - shown[-2] >= 95


def test_a_view_of_a_resumed_run_starts_with_its_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path)
    file = io.StringIO()
    view = LiveView(Console(file=file, width=80, height=30, force_terminal=True))
    view.show_plan(run, [("steps", "40 of 8 samples")])
    view.write(attempt(2, 20))
    view.close()
    assert "40 of 8 samples" in capsys.readouterr().err
    assert "2.5000 @ 20" in file.getvalue() and "\x1b[?25h" in file.getvalue()


def test_a_view_that_fails_gives_the_terminal_back() -> None:
    file = io.StringIO()
    view = LiveView(Console(file=file, width=80, height=30, force_terminal=True))
    view.write(attempt())
    with pytest.raises(AttributeError):
        view._progress = None  # type: ignore[assignment]
        view.write(attempt())
    assert file.getvalue().rstrip().endswith("\x1b[?25h")
    view.close()


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_view(), LineView)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view(), LineView)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_view(), LiveView)
