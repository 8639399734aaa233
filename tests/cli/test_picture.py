"""The picture of a run that goes on, drawn into consoles of fixed sizes and read back."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from etude.cli.picture import draw
from etude.records.events import Control, Evaluation, Event, Finding, Forecast, Generation
from etude.report.progress import Progress
from tests.report.runs import attempt, evaluation, new_run, window

QUESTION = "### Instruction:\n" + "Explain at length what a list is. " * 30 + "\n\n### Response:\n"
SIZES = [(80, 24), (120, 40)]


def picture(
    path: Path, events: Sequence[Event], width: int, height: int, *, encoding: str = "utf-8",
    changes: dict[str, Any] | None = None, asked: str | None = None,
) -> list[str]:  # fmt: skip
    run = new_run(path, changes).run
    progress = Progress("small-123456", run.recipe, asked=asked)
    for event in events:
        progress.write(event)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, height=height, color_system=None)
    console.print(draw(progress, console))
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


def records() -> list[Event]:
    return [
        attempt(), *window(1, 5), *window(6, 10), evaluation(10, 2.75),
        Generation(10, QUESTION, "A list\x1b[2J\n\tholds items.", {}, reference="It holds items."),
        Generation(10, "def ", "f():\n\treturn 1", {}), Finding(10, "non-finite step", "loss nan", "lower it"),
        *window(11, 15), evaluation(15, 3.0, best=False),
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_picture_fits_and_holds_the_figures_and_the_texts(
    tmp_path: Path, width: int, height: int
) -> None:
    lines = picture(tmp_path, records(), width, height)
    text = "\n".join(lines)
    assert len(lines) < height and max(map(len, lines)) <= width
    for figure in (
        "15 / 40", "38 %", "3.0000", "2.7500 @ 10", "0.001", "25.0 %", "1.0 GB", "215", "non-finite step",
    ):  # fmt: skip
        assert figure in text
    # The prompt of the recipe stands first, and its text goes on where it ends.
    first = lines.index("continued after step 10")
    assert lines[first + 1 : first + 3] == ["  def f():", "      return 1"]
    assert "\x1b" not in text and "A list\\x1b[2J" in text


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_answer_to_a_long_question_is_in_the_picture(tmp_path: Path, width: int, height: int) -> None:
    answered = Generation(15, QUESTION, "A list holds items.", {}, reference="It holds items.")
    lines = picture(tmp_path, [*records(), answered, *[answered] * 3], width, height)
    place = lines.index("  A list holds items.")
    assert lines[place - 1].startswith("answered after step 15: …")
    assert lines[place - 1].endswith("### Response:") and lines[place + 1] == "  expected: It holds items."


def test_questions_are_shown_without_the_lines_of_the_template_that_all_have(tmp_path: Path) -> None:
    frame = "<|system|>\nBe brief.\n<|user|>\n{}\n<|assistant|>\n"
    asked = ["Reverse a list.\n\n[1, 2]", "Reverse a string."]
    texts = [Generation(15, frame.format(each), "Yes.", {}, reference="No.") for each in asked]
    lines = picture(tmp_path, [*records(), *texts], 120, 40)
    assert "answered after step 15: Reverse a list. [1, 2]" in lines
    assert "answered after step 15: Reverse a string." in lines
    alone = picture(tmp_path / "alone", [*records(), texts[0]], 120, 40)
    assert any(
        line.startswith("answered after step 15: ") and line.endswith("<|assistant|>") for line in alone
    )


def test_the_forecast_stands_below_the_time_so_far(tmp_path: Path) -> None:
    forecast = Forecast(3, 3600.0 * 2, 60.0, 1_340_000_000, 10**9)
    lines = picture(tmp_path, [attempt(), *window(1, 5), forecast], 80, 24)
    (place,) = [index for index, line in enumerate(lines) if line.startswith("elapsed")]
    assert lines[place + 1].split("   ")[0] == "forecast" and "2 h, 1.3 GB" in lines[place + 1]


def test_an_answer_of_white_space_and_none_at_all_are_said_in_words(tmp_path: Path) -> None:
    texts = [Generation(15, "a", " " * 83, {}, "x"), Generation(15, "b", "", {}, "x")]
    lines = picture(tmp_path, [attempt(), *window(1, 15), *texts], 120, 40)
    assert "  (83 characters, all white space)" in lines and "  (nothing)" in lines


def places(lines: Sequence[str], sign: str) -> list[tuple[int, int]]:
    """Line and column of a sign in the chart, whose legend is in its first and last line."""
    first = next(index for index, line in enumerate(lines) if "⠒ training loss" in line)
    last = next(index for index, line in enumerate(lines) if "to step" in line)
    return [
        (row, column)
        for row in range(first + 1, last)
        for column, character in enumerate(lines[row])
        if character == sign
    ]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_validation_has_its_own_marks_at_its_own_values_on_an_axis_that_holds_them(
    tmp_path: Path, width: int, height: int
) -> None:
    """Losses fall from 6.0 to 2.1; validation rises to 9.0, far above all that was trained."""
    scored = [evaluation(step, 2.0 + step / 40 * 7, best=step == 10) for step in (10, 20, 30, 40)]
    lines = picture(tmp_path, [attempt(), *window(1, 40), *scored], width, height)
    top = next(index for index, line in enumerate(lines) if "⠒ training loss  ● validation" in line)
    end = next(index for index, line in enumerate(lines) if "to step 40" in line)
    assert lines[top].split("⠒")[0].endswith("9.00  ") and "2.10" in lines[end] and "◆ best" in lines[end]
    (best,), others = places(lines, "◆"), places(lines, "●")
    assert len(others) == 3 and all(row < best[0] and column > best[1] for row, column in others)
    assert min(others)[0] == top + 1  # the worst is at the upper edge
    # A value of 3.75 on an axis from 2.1 to 9.0 is 76 % of the way down.
    assert (best[0] - top - 1) / (end - top - 2) == pytest.approx((9 - 3.75) / 6.9, abs=0.1)


def test_another_metric_has_its_value_now_and_best_and_marks_the_kept_checkpoint(tmp_path: Path) -> None:
    changes = {
        "evaluate.metric": "f1", "train.objective": "classification", "model.kind": "encoder",
        "data.train": [{"path": "a.jsonl", "label": "label", "field": "text"}],
    }  # fmt: skip
    scored = [
        Evaluation(step, loss, 7.0, None, 10, 1.0, step == 20, {"f1": f1})
        for step, loss, f1 in ((0, 5.0, 0.25), (20, 5.5, 0.75), (40, 3.0, 0.5))
    ]
    records = [attempt(), scored[0], *window(1, 20), scored[1], *window(21, 40), scored[2]]
    lines = picture(tmp_path, records, 80, 24, changes=changes)
    text = "\n".join(lines)
    for name, value in (("f1", "0.5000"), ("best", "0.7500 @ 20"), ("before training", "0.2500")):
        assert any(line.startswith(f"{name} ") and value in line for line in lines), name
    assert "◆ best by f1" in text
    (best,) = places(lines, "◆")
    assert best[0] == min(row for row, _ in [best, *places(lines, "●")])  # its loss is the highest


def test_every_step_is_drawn_not_log_windows(tmp_path: Path) -> None:
    """Two steps, before any log line: each has its half of the chart."""
    lines = picture(tmp_path, [attempt(steps=2), *window(1, 2)[:2]], 80, 24)
    drawn = "".join(lines[places(lines, "⠉")[0][0]])
    assert drawn.count("⠉") == (80 - 34 - 4) // 2


def test_what_a_person_decides_or_asks_is_said_with_its_step(tmp_path: Path) -> None:
    records = [attempt(), *window(1, 5)]
    assert any(
        line.startswith("Ctrl-C: saves and stops") and line.endswith("at once")
        for line in picture(tmp_path, records, 80, 24, asked="SIGINT")
    )
    ended = picture(tmp_path, [*records, Control(5, "stop", "SIGINT was received")], 80, 24, asked="SIGINT")
    assert ended[-1] == "step 5 stop: SIGINT was received"
    assert ended[1].endswith("5 / 40  stopped") and "attempt" not in ended[0]
    again = picture(tmp_path, [*records, attempt(2, 5)], 80, 24)
    assert again[0].endswith("attempt 2 from step 5")


def test_the_finding_has_two_lines_and_is_read_to_its_advice(tmp_path: Path) -> None:
    finding = Finding(5, "odd labels", "a long reason " * 6, "mend them")
    lines = picture(tmp_path, [attempt(), *window(1, 5), finding], 80, 24)
    assert lines[-2].startswith("step 5 odd labels: a long reason") and lines[-1].endswith("; mend them")
    for length in range(40, 160):  # a cut is marked, wherever the lines break
        finding = Finding(5, "odd", ("some words " * 20)[:length], "the end")
        lines = picture(tmp_path, [attempt(), *window(1, 5), finding], 60, 24)
        assert lines[-1].endswith(("end", "…")), length


def test_a_terminal_without_such_characters_gets_no_curve(tmp_path: Path) -> None:
    assert "⠒ training loss" not in "\n".join(picture(tmp_path, records(), 80, 24, encoding="ascii"))


@pytest.mark.parametrize(("width", "height"), [(40, 10), (20, 5), (200, 60)])
def test_a_terminal_of_any_size_has_a_picture_that_fits_its_width(
    tmp_path: Path, width: int, height: int
) -> None:
    assert max(map(len, picture(tmp_path, records(), width, height))) <= width
