"""Runs that are odd: broken off, damaged, with names of any length and script. Each is told once, and fits."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from etude.records.events import Control, Scores
from etude.records.store import Run
from tests.report.runs import attempt, evaluation, finished_run, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window, serious_findings
from tests.ui.serving import Serving, serving

Look = Callable[..., AbstractContextManager[Window]]
LONG = "a-name-of-two-hundred-characters-" * 6
LABELS = ["bug", "שאלה", "质量问题", "x" * 80]
REASON = "RuntimeError: an illegal memory access in layer 3"


def _named(run: Run, name: str) -> str:
    identity = str(run.info["id"])
    run.path.rename(run.path.parent / name)
    return identity


def _broken(runs: Path) -> str:
    writer = new_run(runs)
    writer.append(attempt(), *steps(1, 12), evaluation(10, 2.7))
    writer.append(Control(5, "note", "a word", who="anna"), Control(12, "fail", REASON))
    writer.close("failed")
    return str(writer.run.info["id"])


def _without_recipe(runs: Path) -> str:
    writer = new_run(runs)
    writer.append(attempt(), *steps(1, 5))
    writer.close("stopped")
    (writer.run.path / "resolved.toml").unlink()
    return str(writer.run.info["id"])


def _with_labels(runs: Path) -> str:
    writer = new_run(runs)
    figures = {f"metric_{number}": math.sin(number) for number in range(12)} | {
        f"{figure}/{name}": 0.5 for name in LABELS for figure in ("precision", "recall", "f1")
    }
    counts = [[12_345 if row == column else row + column for column in range(4)] for row in range(4)]
    writer.append(
        attempt(), *steps(1, 1), replace(evaluation(1, 2.7), metrics=figures),
        Scores(1, sum(map(sum, counts)), "test", "f1", {"after": {"f1": [0.8, 0.7, 0.9]}}, {}, {}, LABELS, counts),
    )  # fmt: skip
    writer.close("stopped")
    return str(writer.run.info["id"])


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, dict[str, str]]]:
    """A server of odd runs, and their ids."""
    runs = tmp_path_factory.mktemp("odd")
    ids = {
        "broken": _broken(runs), "without recipe": _without_recipe(runs), "labels": _with_labels(runs),
        "long": _named(finished_run(runs, {"records.tags": [LONG]}), LONG),
        "hebrew": _named(finished_run(runs), "נתונים-עברית-ריצה-12"),
        "chinese": _named(finished_run(runs), "深度学习" * 15),
    }  # fmt: skip
    with serving(runs) as server:
        yield server, ids


@pytest.fixture(scope="module")
def narrow(odd: tuple[Serving, dict[str, str]], look: Look) -> Iterator[Window]:
    with look(odd[0], 420, color_scheme="dark", reduced_motion="reduce", bypass_csp=True) as window:
        yield window


def test_why_a_run_failed_and_what_was_done_to_it_are_told_once(
    odd: tuple[Serving, dict[str, str]], narrow: Window
) -> None:
    narrow.go(f"#/run/{odd[1]['broken']}")
    narrow.wait("[data-chart=Loss] canvas")
    shown = narrow.text("main")
    assert shown.count(REASON) == 1 and shown.count("a word") == 1
    assert "training loss, mean of 6 steps" in shown  # which is not that of the last step
    assert narrow.page.locator("[data-chart=Loss] .at").inner_text() == "last"
    narrow.picture("failed")


def test_a_run_that_cannot_be_read_shows_why_and_nothing_that_it_has_not(
    odd: tuple[Serving, dict[str, str]], narrow: Window
) -> None:
    narrow.go(f"#/run/{odd[1]['without recipe']}")
    narrow.wait("[role=alert]:has-text('resolved.toml does not exist')")
    shown = narrow.text("main")
    assert "Its charts cannot be drawn." in shown
    assert "Figures" not in shown and "training loss" not in shown


@pytest.mark.parametrize("name", ["labels", "long", "hebrew", "chinese"])
def test_names_of_any_length_and_script_fit(
    name: str, odd: tuple[Serving, dict[str, str]], narrow: Window
) -> None:
    narrow.go(f"#/run/{odd[1][name]}")
    narrow.wait("[data-chart=Loss] canvas")
    narrow.rest()
    assert not narrow.is_too_wide()
    assert narrow.page.evaluate("document.querySelector('h1').clientHeight") < 100
    if name == "labels":  # the figures beside a long label are in the window
        assert narrow.page.locator(".matrix td.number").count() == 4 * 5
        cell = narrow.page.locator("section:has(h2:text-is('By label')) tbody tr:last-child td").first
        assert cell.bounding_box()["x"] < 380
    narrow.picture(name)


def test_the_pages_of_all_runs_fit_with_such_names(
    odd: tuple[Serving, dict[str, str]], narrow: Window, axe: str
) -> None:
    ids = ",".join(odd[1][name] for name in ("long", "hebrew", "chinese"))
    for name, place, there in (
        ("runs", "#/runs?columns=status,name,tags,best", "a:has-text('עברית')"),
        ("compare", f"#/compare?runs={ids}", "canvas"),
        ("recipe", f"#/run/{odd[1]['long']}/recipe?against={odd[1]['hebrew']}", "text=As it was given"),
        ("system", "#/system", "td[data-of='could be removed']"),
    ):
        narrow.go(place)
        narrow.wait(there)
        narrow.rest()
        assert not narrow.is_too_wide(), name
        assert serious_findings(narrow, axe) == []
        narrow.picture(f"odd-{name}")
    # All figures of a row stand in the window: none has to be scrolled for.
    boxes = [cell.bounding_box() for cell in narrow.page.locator("td").all()]
    assert boxes and all(box["x"] + box["width"] <= 420 for box in boxes)
    narrow.go("#/runs")
    name = narrow.wait("a:has-text('עברית')")
    assert name.evaluate("(each) => getComputedStyle(each).direction") == "rtl"
