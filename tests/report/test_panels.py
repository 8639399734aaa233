"""The chart of several runs: one scale, validation at its own value."""

import math

from etude.report.panels import Panel, draw_panels

FALL = Panel("fall", [(n, 5.0 - 0.0875 * n) for n in range(1, 41)], [(0, 5.0), (40, 1.5)], 40)
FLAT = Panel("flat", [(n, 3.0) for n in range(1, 11)], [(10, 3.0)], None)


def columns(lines: list[str], place: int) -> list[str]:
    return [line.split("│")[1 + place] for line in lines if "│" in line]


def test_a_mark_is_at_its_value_on_the_scale_of_all() -> None:
    lines = draw_panels([FALL, FLAT], 80, height=9)
    assert lines[1].startswith("    4.95") or lines[1].startswith("    5.00")
    fall, flat = columns(lines, 0), columns(lines, 1)
    assert "●" in fall[0] and "◆" in fall[-1], "validation begins on top and ends at the bottom"
    assert [at for at, row in enumerate(flat) if "●" in row] == [5], (
        "3.0 is a little below the middle of 1.5 and 5.0"
    )
    assert all(len(line) <= 80 for line in lines)


def test_what_is_not_finite_is_not_drawn_and_two_losses_are_needed() -> None:
    broken = Panel("broken", [(1, 4.0), (2, 3.0), (3, math.nan)], [(3, math.inf)], None)
    assert not any("●" in row for row in columns(draw_panels([broken], 60), 0))
    assert draw_panels([Panel("none", [], [])], 60) == []


def test_a_spike_leaves_the_level_readable() -> None:
    spike = Panel("spike", [(n, 500.0 if n == 20 else 2.0) for n in range(1, 41)], [], None)
    assert draw_panels([spike, FALL], 80)[1].split("│")[0].strip() in ("6.19", "6.25")
    high = draw_panels([Panel("high", FALL.training, [(0, 5.0), (40, 50.0)], 0)], 80)
    assert "▲" in high[1] and high[-1] == "▲ validation above the scale"


def test_panels_that_do_not_fit_go_below() -> None:
    lines = draw_panels([FALL] * 6, 80)
    assert sum("step 40" in line for line in lines) == 2 and all(len(line) <= 80 for line in lines)
