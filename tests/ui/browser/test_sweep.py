"""The page of a sweep in a browser: its trials lead to runs, its axes are brushed, its report is read."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.ui.browser.conftest import PICTURES, Window, serious_findings
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]


def test_a_sweep_shows_its_trials_its_knobs_its_costs_and_its_report(
    swept: Path, look: Look, axe: str
) -> None:
    with serving(swept / "sweeps") as server, look(server, bypass_csp=True) as window:
        window.go("#/runs")
        window.wait("a:has-text('tiny')").click()
        window.wait("h1:has-text('tiny-sweep')")
        assert window.page.locator(".square").count() == 4
        assert "4 finished" in window.text("main")
        assert window.page.locator(".matrix td.number").count() == 4
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
        if PICTURES is not None:
            window.page.screenshot(path=str(PICTURES / "sweep-light-1280.png"), full_page=True)
        window.page.locator("a.square").first.click()
        window.wait("[data-chart=Loss] canvas")
