"""Curves for the terminal: their size, levels, joints and marks."""

import math

import pytest

from etude.report.braille import Mark, braille_curve, sparkline


@pytest.mark.parametrize(
    "values", [[], [math.nan] * 9, [1.0], [1.0, math.nan, 3.0], [5.0] * 200, list(range(1000))]
)
def test_text_charts_keep_their_size(values: list[float]) -> None:
    lines = braille_curve(values, 12, 3).lines
    assert [len(line) for line in lines] == [12] * 3
    assert len(sparkline(values, 12)) <= 12


def test_a_falling_line_falls_and_its_mark_is_in_place() -> None:
    # 4 x 4 dots: the diagonal, by hand from the Unicode chart of braille patterns.
    assert braille_curve([3.0, 2.0, 1.0, 0.0], 2, 1) == (["⠑⢄"], 3.0, 0.0)
    assert braille_curve([3.0, 2.0, 1.0, 0.0], 2, 1, marks=[Mark(4, 0.0, "◆")]).lines == ["⠑◆"]
    assert braille_curve([3.0, 2.0, 1.0], 6, 1, marks=[Mark(3, 1.0, "◆")]).lines[0].index("◆") == 5
    assert sparkline([7.0, 0.0, math.nan, 3.0], 10) == "█▁ ▄"


def test_only_what_was_measured_is_drawn() -> None:
    # Three log windows over 16 columns of dots: levels of the first 8 columns, of the next 4 and of the last
    # 4.
    assert braille_curve([2.0, 1.0, 0.0], 8, 1, ends=[8, 12, 16]).lines == ["⠉⠉⠉⠉⠤⠤⣀⣀"]
    assert braille_curve([2.0, math.nan, 0.0], 8, 1, ends=[8, 12, 16]).lines == ["⠉⠉⠉⠉  ⣀⣀"]
    marks = [Mark(12, 1.0, "◆")]
    assert braille_curve([2.0, 1.0, 0.0], 8, 1, ends=[8, 12, 16], marks=marks).lines == ["⠉⠉⠉⠉⠤◆⣀⣀"]
    levels = {
        ord(char) - 0x2800 for line in braille_curve([9.0, 0.0], 20, 4).lines for char in line if char != " "
    }
    assert levels == {0x01 | 0x08, 0x40 | 0x80}  # two levels, and no line from one to the other


def test_a_mark_stands_at_its_own_value_and_the_edges_hold_it() -> None:
    curve = braille_curve(
        [1.0, 1.0], 4, 5, marks=[Mark(0, 5.0, "●"), Mark(2, 3.0, "◆"), Mark(1, math.nan, "x")]
    )
    assert (curve.high, curve.low) == (5.0, 1.0)
    assert curve.lines == ["●   ", "    ", "   ◆", "    ", "⣀⣀⣀⣀"]
    alone = braille_curve([], 4, 2, marks=[Mark(0, 5.0, "●")])
    assert alone == (["    ", "●   "], 5.0, 5.0)


def test_figures_as_far_apart_as_floats_go_are_drawn() -> None:
    curve = braille_curve([1e308, -1e308, 0.0, 1.7e308, -1.7e308], 20, 4)
    assert len(curve.lines) == 4
