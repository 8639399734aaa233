"""The page of a sweep in a browser: its trials lead to runs, its axes are brushed, its report is read."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.ui.browser.conftest import Window, serious_findings
from tests.ui.serving import serving
from tests.ui.trials import make_sweep

Look = Callable[..., AbstractContextManager[Window]]


def test_a_sweep_shows_its_trials_its_knobs_its_costs_and_its_report(
    swept: Path, look: Look, axe: str
) -> None:
    with serving(swept / "sweeps") as server, look(server, bypass_csp=True) as window:
        window.go("#/runs")
        window.wait("li:has-text('4 finished') a:has-text('tiny')").click()
        window.wait("h1:has-text('tiny-sweep')")
        assert window.page.locator(".square").count() == 4
        assert "4 finished" in window.text("main")
        assert window.page.locator(".matrix td.number").count() == 4
        last = window.page.get_by_role("slider").last.locator("text:not(.title)")
        assert (
            len({len(each.partition(".")[2]) for each in last.all_text_contents()}) == 1
        )  # as 6.00 and 6.43
        assert last.first.get_attribute("text-anchor") == "start"  # beside the lines, not over them
        axis = window.page.get_by_role("slider", name="optim.learning_rate")
        axis.focus()
        window.page.keyboard.press("ArrowUp")
        window.wait("text=2 of 4 trials pass")
        assert "brush=optim.learning_rate" in window.page.url
        window.page.keyboard.press("Escape")
        window.until("!document.querySelector('.brush')")
        assert "No trial is both better and cheaper" in window.text("main")
        window.page.locator("summary:has-text('Verdict')").click()
        assert serious_findings(window, axe) == []
        window.picture("sweep")
        window.page.locator("a.square").first.click()
        window.wait("[data-chart=Loss] canvas")


def test_a_sweep_of_hundreds_of_trials_has_few_elements_and_right_answers(
    tmp_path: Path, look: Look, axe: str
) -> None:
    grid = {"optim.learning_rate": [1e-4, 1e-3, 1e-2], "schedule.warmup_steps": list(range(18))}
    folder = make_sweep(tmp_path, grid)
    with serving(folder.path) as server, look(server, bypass_csp=True) as window:
        (sweep,) = server.get("/api/runs")["sweeps"]
        trials = server.get(f"/api/sweeps/{sweep['id']}")["trials"]
        assert len(trials) == 216
        window.go(f"#/sweep/{sweep['id']}")
        window.wait("text=All trials")
        assert window.page.locator(".square").count() == 216
        assert window.page.locator(".square:not([tabindex='-1'])").count() == sum(
            not each["id"] for each in trials
        )
        assert window.page.locator("path.thread").count() < 10
        assert window.page.locator(".grid tbody tr:not(.space)").count() < 60
        valued = [each for each in trials if each["value"] is not None]
        window.page.get_by_role("slider", name="optim.learning_rate").focus()
        window.page.keyboard.press("ArrowUp")
        kept = sum(each["values"]["optim.learning_rate"] == 1e-2 for each in valued)
        window.wait(f"text={kept} of {len(valued)} trials pass")
        window.page.get_by_label("across").select_option("optim.learning_rate")
        window.page.get_by_label("down").select_option("model")
        here = [each["value"] for each in valued if each["model"] == "small-code-small" and each["values"]["optim.learning_rate"] == 1e-3]  # fmt: skip
        row = window.text(".matrix tr:has-text('small-code-small')").split()
        assert float(row[2]) == pytest.approx(sum(here) / len(here), rel=1e-3)
        window.page.get_by_role("button", name="Trial", exact=True).click()
        first = min(each["name"] for each in trials)
        window.until(f"document.querySelector('.grid tbody tr:not(.space)').innerText.includes('{first}')")
        assert serious_findings(window, axe) == []
