"""Every page in light and dark, wide and narrow: whole, within its window, and without a serious finding of axe."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Control, Finding, Generation
from etude.report.write import write_report
from tests.bases import write_corpus
from tests.report.runs import SCORES, attempt, evaluation, finished_run, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import PICTURES, Window, serious_findings
from tests.ui.serving import Serving, serving

Look = Callable[..., AbstractContextManager[Window]]
# Each page by its name: where it is, and what is there once it is whole.
PAGES = {
    "runs": ("#/runs", ".grid a"),
    "run": ("#/run/{first}?finding=0", "[data-chart=Loss] canvas"),
    "samples": ("#/run/{first}/samples", "text=answers"),
    "recipe": ("#/run/{first}/recipe", "text=As it was given"),
    "data": ("#/run/{first}/data", ".timeline pre"),
    "report": ("#/run/{first}/report", "article h2"),
    "log": ("#/run/{first}/log", ".tools"),
    "compare": ("#/compare?runs={first},{second}", "canvas"),
    "new": ("#/new", "text=Start the run"),
    "system": ("#/system", "text=Disk"),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of two runs, the first with something of everything."""
    folder = tmp_path_factory.mktemp("two")
    corpus = write_corpus(folder / "corpus.jsonl")
    source = {"data.train": [{"path": str(corpus)}], "train.seq_len": 32, "train.device": "cpu"}
    writer = new_run(folder, {"optim.learning_rate": 3e-4, **source})
    writer.append(attempt(), *steps(1, 20), evaluation(20, 2.5), SCORES)
    writer.append(
        Finding(12, "the loss jumps", "from 2 to 9", "lower the rate", window=[8, 12]),
        *(Generation(step, "def add(a, b):", f"return {'a + b'[:length]}", {}, "return a + b", True)
          for step, length in ((5, 1), (20, 5))),
        Control(20, "set", "a plateau", changes={"optim.learning_rate": 1e-4}, before={"optim.learning_rate": 3e-4}),
    )  # fmt: skip
    writer.log("step 20  loss 2.2")
    writer.close("stopped")
    write_report(writer.run)
    second = finished_run(folder)
    with serving(folder) as server:
        yield server, {"first": writer.run.info["id"], "second": second.info["id"]}


@pytest.fixture(scope="module")
def windows(two: tuple[Serving, dict[str, str]], look: Look) -> Iterator[list[Window]]:
    """A window of each look, which goes from page to page."""
    looks = (("light", 1280), ("dark", 360)) if PICTURES is None else _ALL
    with contextlib.ExitStack() as opened:
        yield [
            opened.enter_context(
                look(two[0], width, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
            )
            for scheme, width in looks
        ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_within_its_window_and_accessible(
    name: str, two: tuple[Serving, dict[str, str]], windows: list[Window], axe: str
) -> None:
    place, whole = PAGES[name]
    for window in windows:
        window.go(place.format(**two[1]))
        window.wait(whole)
        window.rest()
        assert not window.is_too_wide(), f"{name} in {window.name}"
        assert serious_findings(window, axe) == []
        window.picture(name)
        assert window.wrong == []


_ALL = [(scheme, width) for scheme in ("light", "dark") for width in (1440, 360)]


def test_two_runs_stand_side_by_side_with_what_differs(
    two: tuple[Serving, dict[str, str]], look: Look
) -> None:
    server, ids = two
    with look(server) as window:
        window.go("#/compare?runs={first},{second}".format(**ids))
        window.wait("h1:has-text('2 runs side by side')")
        assert "optim.learning_rate" in window.text("table:has-text('0.0003')")
        figures = window.page.locator("section:has(h2:text-is('Figures')) tr")
        heads = [head.get_attribute("href") for head in figures.first.locator("a").all()]
        states = [server.get(f"/api/runs/{str(head).rpartition('/')[2]}")["state"] for head in heads]
        assert figures.filter(has_text="status").locator("td").all_inner_texts() == states
        assert sorted(states) == ["finished", "stopped"]
        window.wait("[data-chart='Training loss'] canvas")
        assert window.page.locator("[data-chart='Training loss'] .legend button").count() == 2
        window.page.get_by_role("button", name="Training loss as table").click()
        window.wait(".points tbody tr")
        window.page.reload()  # the address holds it
        window.wait(".points tbody tr")
        with window.page.expect_download() as found:
            window.page.get_by_role("button", name="Training loss as CSV").click()
        lines = Path(found.value.path()).read_text().splitlines()
        assert lines[0] == "step,line,value,least,greatest" and len(lines) == 61
