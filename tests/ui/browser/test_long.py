"""A run of a million steps in a browser: few points are asked for and drawn, and no spike is lost."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from etude.records.store import Run
from etude.ui.columns import open_columns
from tests.report.runs import attempt, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window
from tests.ui.serving import Serving, serving

Look = Callable[..., AbstractContextManager[Window]]
COUNT, SPIKE = 1_000_000, 777_777
_PLOT = "document.querySelector('[data-chart=Loss] .plot').plot"
_X = f"{_PLOT}.data[0]"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Run]]:
    """A server of a run whose columns have a million steps; its journal has the first ones."""
    folder = tmp_path_factory.mktemp("long")
    writer = new_run(folder / "runs", {"train.steps": COUNT})
    writer.append(attempt(steps=COUNT), *steps(1, 5))
    writer.close("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        columns = open_columns(writer.run)
        columns.update()
        first = columns.steps.rows(4, 5)
        for start in range(6, COUNT + 1, 100_000):
            number = np.arange(start, min(start + 100_000, COUNT + 1))
            rows = np.repeat(first, len(number), 0)
            rows[:, 0], rows[:, 1], rows[:, 2] = number, 100.0 * number, 0.5 * number
            loss = columns.steps.columns.index("train/loss")
            rows[:, loss] = np.where(number == SPIKE, 50.0, 2 + 4 / number)
            columns.steps.append(rows)
            columns.steps.flush()
        with serving(folder / "runs") as server:
            yield server, writer.run


def test_a_zoom_into_a_million_steps_asks_for_its_range_in_as_many_points_as_are_drawn(
    long: tuple[Serving, Run], look: Look
) -> None:
    server, run = long
    with look(server) as window:
        asked: list[dict[str, list[str]]] = []
        window.page.on("request", lambda request: _note(asked, request.url))
        window.go(f"#/run/{run.info['id']}")
        window.until(f"{_X}.at(-1) > {0.99 * COUNT}")
        points = int(asked[-1]["points"][0])
        assert "from" not in asked[-1] and 400 <= points <= 2000
        drawn = window.page.evaluate(f"{_X}.length")
        assert points / 2 < drawn <= 2 * points + 1
        assert (
            window.page.evaluate(f"Math.max(...{_PLOT}.data.slice(1).flat())") == 50
        )  # the spike's own height
        assert "50.00" not in window.text("[data-chart=Loss] .legend") and "Means of" in window.text(
            "figcaption"
        )

        box = window.page.locator("[data-chart=Loss] .u-over").bounding_box()
        left, middle = box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2
        window.page.mouse.move(left, middle)
        window.page.mouse.down()
        window.page.mouse.move(left + 0.1 * box["width"], middle, steps=3)
        window.page.mouse.up()
        window.until("location.hash.includes('from=')")
        window.until(f"{_X}[0] > {0.69 * COUNT} && {_X}.at(-1) < {0.81 * COUNT}")
        low, high = float(asked[-1]["from"][0]), float(asked[-1]["to"][0])
        assert 0.69 * COUNT < low < SPIKE < high < 0.81 * COUNT
        assert window.page.evaluate(f"{_X}.length") <= 2 * points + 1
        assert window.page.evaluate(f"[{_PLOT}.scales.x.min, {_PLOT}.scales.x.max]") == [low, high]

        window.go(f"#/run/{run.info['id']}?from={SPIKE - 50}&to={SPIKE + 50}")
        window.until(f"{_X}.length === 103")  # each step, and one on either side
        assert window.page.evaluate(f"{_PLOT}.data[1][51]") == 50
        assert window.page.evaluate(f"{_X}[51]") == SPIKE


def test_a_smoothed_curve_is_the_same_in_whole_and_in_any_part(long: tuple[Serving, Run], look: Look) -> None:
    server, run = long
    at, half_life = SPIKE + 5000, 5000
    smooth = f"(() => {{ const [xs, ...series] = {_PLOT}.data, i = xs.findIndex((x) => x >= {at}); return series.at(-1)[i]; }})()"
    found = []
    with look(server) as window:
        for part in ("", f"&from={at - 200_000}&to={at + 100_000}", f"&from={at - 1000}&to={at + 500}"):
            window.page.goto("about:blank")
            window.go(f"#/run/{run.info['id']}?smooth={half_life}{part}")
            window.until(f"{_X}.at(-1) > {at} && Number.isFinite({smooth})")
            found.append(window.page.evaluate(smooth) - 2)
        assert "half-life of 5,000 steps" in window.text("figcaption")
    # The spike of one step among means of as many steps as the half-life has.
    expected = 48 * math.log(2) / half_life * 0.5 + 4 / at
    assert found == [pytest.approx(expected, rel=0.1)] * 3


def _note(asked: list[dict[str, list[str]]], url: str) -> None:
    """Keep the questions for the lines of the loss."""
    query = parse_qs(urlsplit(url).query)
    if query.get("names", [""])[0].startswith("train/loss") and query["points"] != ["2"]:
        asked.append(query)
