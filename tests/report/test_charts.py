import math
import xml.etree.ElementTree
from pathlib import Path

import pytest

from etude.report.charts import braille_curve, chart_svgs, envelope, smooth, sparkline
from etude.report.history import read_history
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


def test_the_same_journal_gives_the_same_charts(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    charts = chart_svgs(read_history(run))
    assert charts == chart_svgs(read_history(run))
    assert set(charts) == {"loss.svg", "learning_rate.svg", "grad_norm.svg", "speed.svg"}
    for svg in charts.values():
        assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"best 2.5000 at step 20" in charts["loss.svg"]
    assert b"clipped to 1" in charts["grad_norm.svg"]


def test_a_long_run_makes_small_charts(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 6_000, bad=tuple(range(5, 6_000, 7))), evaluation(6_000, 2.0))
    writer.close("finished")
    assert max(len(svg) for svg in chart_svgs(read_history(writer.run)).values()) < 300_000


def test_steps_that_were_all_skipped_draw(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 3, bad=(1, 2, 3)))
    writer.close("failed")
    assert b"skipped" in chart_svgs(read_history(writer.run))["loss.svg"]


def test_an_envelope_keeps_the_extremes() -> None:
    ys = [math.sin(x / 50) for x in range(10_000)]
    ys[4321] = 50.0
    xs, kept = envelope(range(10_000), ys, 100)
    assert len(xs) <= 100 and (max(kept), min(kept)) == (50.0, min(ys))
    assert xs == sorted(xs) and xs[kept.index(50.0)] == 4321


def test_a_moving_mean_is_the_mean_of_its_neighbours() -> None:
    assert smooth([0.0, 3.0, 6.0, 0.0]) == [1.5, 3.0, 3.0, 3.0]
    assert smooth([]) == []


@pytest.mark.parametrize(
    "values", [[], [math.nan] * 9, [1.0], [1.0, math.nan, 3.0], [5.0] * 200, list(range(1000))]
)
def test_text_charts_keep_their_size(values: list[float]) -> None:
    lines = braille_curve(values, 12, 3, mark=len(values) // 2)
    assert [len(line) for line in lines] == [12] * 3
    assert len(sparkline(values, 12)) <= 12


def test_a_falling_line_falls_and_its_mark_is_in_place() -> None:
    # 4 x 4 dots: the diagonal, by hand from the Unicode chart of braille patterns.
    assert braille_curve([3.0, 2.0, 1.0, 0.0], 2, 1) == ["⠑⢄"]
    assert braille_curve([3.0, 2.0, 1.0, 0.0], 2, 1, mark=3) == ["⠑◆"]
    assert braille_curve([3.0, 2.0, 1.0], 6, 1, mark=2)[0].index("◆") == 5
    assert sparkline([7.0, 0.0, math.nan, 3.0], 10) == "█▁ ▄"


def test_only_what_was_measured_is_drawn() -> None:
    # Three log windows over 16 columns of dots: levels of the first 8 columns, of the next 4 and of the last
    # 4.
    assert braille_curve([2.0, 1.0, 0.0], 8, 1, ends=[8, 12, 16]) == ["⠉⠉⠉⠉⠤⠤⣀⣀"]
    assert braille_curve([2.0, math.nan, 0.0], 8, 1, ends=[8, 12, 16]) == ["⠉⠉⠉⠉  ⣀⣀"]
    assert braille_curve([2.0, 1.0, 0.0], 8, 1, mark=1, ends=[8, 12, 16]) == ["⠉⠉⠉⠉⠤◆⣀⣀"]
    levels = {ord(char) - 0x2800 for line in braille_curve([9.0, 0.0], 20, 4) for char in line if char != " "}
    assert levels == {0x01 | 0x08, 0x40 | 0x80}  # two levels, and no line from one to the other
