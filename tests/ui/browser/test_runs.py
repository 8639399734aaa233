"""The list of runs in a browser: 500 of them, found, sorted, held against one, by mouse and by keyboard."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.report.runs import finished_run
from tests.ui.browser.conftest import Window
from tests.ui.serving import Serving, serving

COUNT = 500
Look = Callable[..., AbstractContextManager[Window]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of copies of a run under names and ids of their own."""
    folder = tmp_path_factory.mktemp("many")
    run = finished_run(folder / "first")
    for number in range(COUNT):
        copy = folder / "runs" / f"small-{number:06}"
        shutil.copytree(run.path, copy, copy_function=os.link)
        info = json.loads((copy / "run.json").read_text())
        created = f"2026-01-{1 + number // 24:02}T{number % 24:02}:00:00+00:00"
        (copy / "run.json").unlink()
        (copy / "run.json").write_text(json.dumps({**info, "id": copy.name, "created": created}))
    with serving(folder / "runs") as server:
        yield server


def test_500_runs_are_listed_sorted_and_filtered_and_only_those_in_view_exist(
    many: Serving, look: Look
) -> None:
    with look(many) as window:
        window.go("#/runs")
        window.wait(f"text={COUNT} runs")
        assert window.page.locator(".grid tbody tr:not(.space)").count() < 60
        window.page.get_by_role("button", name="Name", exact=True).click()
        window.until(
            "document.querySelector('.grid tbody tr:not(.space)').innerText.includes('small-000000')"
        )
        window.page.get_by_role("button", name="Name ↑").click()
        window.until(
            "document.querySelector('.grid tbody tr:not(.space)').innerText.includes('small-000499')"
        )
        window.page.get_by_role("searchbox").fill("small-00000")
        window.wait(f"text=10 of {COUNT} runs")
        assert "q=small-00000" in window.page.url and "sort=-name" in window.page.url
        window.page.reload()  # the address holds the view
        window.wait(f"text=10 of {COUNT} runs")
        window.until(
            "document.querySelector('.grid tbody tr:not(.space)').innerText.includes('small-000009')"
        )
        with window.page.expect_download() as found:
            window.page.get_by_role("button", name="CSV").click()
        lines = Path(found.value.path()).read_text().splitlines()
        assert len(lines) == 11 and lines[0].startswith("State,Name,Model") and "small-000009" in lines[1]


def test_ticks_of_an_axis_have_one_notation(many: Serving, look: Look) -> None:
    with look(many) as window:
        ticks = "import('/static/format.js').then(({ inTicks }) => inTicks(%s, '', %s))"
        assert window.page.evaluate(ticks % ([0, 5e-4, 1e-3], "false")) == ["0", "0.0005", "0.001"]
        assert window.page.evaluate(ticks % ([0, 2e-5, 4e-5], "false")) == ["0", "2e-5", "4e-5"]
        assert window.page.evaluate(ticks % ([1e-4, 0.1], "true")) == ["1e-4", "0.1"]
        # As many digits as tell them apart.
        assert window.page.evaluate(ticks % ([2.00001, 2.00002], "false")) == ["2.00001", "2.00002"]
        memory = ticks.replace("''", "'bytes'") % ([1_000_010_000, 1_000_020_000], "false")
        assert window.page.evaluate(memory) == ["1.00001 GB", "1.00002 GB"]


def test_the_baseline_stays_above_all_others(many: Serving, look: Look) -> None:
    with look(many) as window:
        for sort in ("name", "-name"):
            window.go(f"#/runs?sort={sort}&baseline=small-000300")
            window.wait("text=against small-000300")
            window.until(
                "document.querySelector('.grid tbody tr:not(.space)').innerText.includes('small-000300')"
            )


def test_a_scrolled_table_shows_its_last_row(many: Serving, look: Look) -> None:
    with look(many) as window:
        window.go("#/runs?sort=name")
        window.wait(".grid a")
        window.page.evaluate("document.querySelector('.grid').scrollTop = 1e6")
        window.wait("text=small-000499")


def test_the_keyboard_alone_finds_pins_chooses_and_opens_runs(many: Serving, look: Look) -> None:
    with look(many) as window:
        window.go("#/runs?sort=name")
        window.wait(".grid a")
        keys = window.page.keyboard
        keys.press("/")
        keys.type("small-00016")
        window.wait(f"text=10 of {COUNT} runs")
        _tab_to(window, "document.activeElement.className === 'grid'", 10)
        for key in ("ArrowDown", "p", "x", "ArrowDown", "x"):
            keys.press(key)
        window.until("location.hash.includes('baseline=small-000160')")
        window.until("location.hash.includes('runs=small-000160%2Csmall-000161')")
        window.wait("text=against small-000160")
        keys.press("Enter")
        window.until("location.hash === '#/run/small-000161'")
        window.wait("h1:has-text('small-000161')")
        keys.press("g")
        keys.press("r")
        window.wait("summary:has-text('Columns')").press("Enter")
        window.page.get_by_label("Created").press("Space")
        window.wait("th:has-text('Created')")
        keys.press("Escape")
        window.until("!document.querySelector('details.menu[open]')")
        keys.press("?")
        window.wait("dialog[open]")
        keys.press("Escape")
        window.until("!document.querySelector('dialog')")


def test_tab_leads_through_few_places_to_what_stands_below_the_table(tmp_path: Path, look: Look) -> None:
    """One heading of the table is reached by Tab, the others by arrows; and no row."""
    finished_run(tmp_path / "runs")
    for number in range(25):
        (tmp_path / "sweeps" / f"sweep-{number:02}" / "runs").mkdir(parents=True)
        (tmp_path / "sweeps" / f"sweep-{number:02}" / "sweep.toml").write_text("name = 'x'\n")
    with serving(tmp_path / "runs", tmp_path / "sweeps") as server, look(server) as window:
        window.go("#/runs")
        window.wait(".grid a")
        window.page.evaluate("document.activeElement.blur()")
        _tab_to(window, "document.activeElement.textContent.startsWith('State')", 12)
        window.page.keyboard.press("ArrowRight")
        assert window.page.evaluate("document.activeElement.textContent") == "Name"
        window.page.keyboard.press("Enter")
        window.until("location.hash.includes('sort=name')")
        window.page.keyboard.press("Tab")
        assert window.page.evaluate("document.activeElement.textContent") == "sweep-00"
        assert window.page.locator("li:has-text('sweep-')").count() == 20
        window.page.get_by_role("button", name="Show all 25 sweeps").click()
        assert window.page.locator("li:has-text('sweep-')").count() == 25


def test_of_thousands_of_tags_those_are_offered_that_have_what_is_typed(tmp_path: Path, look: Look) -> None:
    for number in range(4):
        tags = [f"tag-{tag:04}" for tag in range(20 * number, 20 * number + 20)]
        finished_run(tmp_path, {"records.tags": tags, "seed": number})
    with serving(tmp_path) as server, look(server) as window:
        window.go("#/runs")
        window.wait(".grid a")
        field = window.page.get_by_role("combobox", name="tag")
        assert window.page.locator("datalist option").count() == 50
        field.fill("tag-006")
        window.until("document.querySelectorAll('datalist option').length === 10")
        assert "1 of 4 runs" not in window.text("main")
        field.fill("tag-0061 (1)")
        window.wait("text=1 of 4 runs")
        assert "tag=tag-0061" in window.page.url
        field.fill("")
        window.wait("text=4 runs")


def _tab_to(window: Window, place: str, most: int) -> None:
    """Press Tab until something is reached, up to so many times."""
    for _ in range(most):
        window.page.keyboard.press("Tab")
        if window.page.evaluate(place):
            return
    raise AssertionError(window.page.evaluate("document.activeElement.outerHTML.slice(0, 300)"))
