"""A real browser on a real server: each test fails on an error in its console and on a request elsewhere."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ui.serving import PATIENCE_SECONDS, Serving

ROOT = Path(__file__).parents[3]
AXE = ROOT / "dev" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
# A folder for pictures of the pages; None where nobody asks for them.
PICTURES = Path(os.environ["ETUDE_PICTURES"]) if "ETUDE_PICTURES" in os.environ else None
PATIENCE_MS = 1000 * PATIENCE_SECONDS  # well below the limit of a test, whose end comes without words


@dataclass
class Window:
    """A window of the browser on a server, and what went wrong in it."""

    page: Any
    port: int
    name: str
    wrong: list[str] = field(default_factory=list)

    def go(self, where: str) -> None:
        """Open a place of the page, as `#/runs`."""
        self.page.goto(f"http://127.0.0.1:{self.port}/{where}")

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def wait(self, selector: str, **given: Any) -> Any:
        """The first element of a selector, once it is there."""
        found = self.page.locator(selector).first
        with self._telling():
            found.wait_for(timeout=PATIENCE_MS, **given)
        return found

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until an expression in the page is true; one that fails, as of what is not there yet, is not."""
        safe = f"() => {{ try {{ return {condition}; }} catch {{ return false; }} }}"
        with self._telling():
            self.page.wait_for_function(safe, arg=argument, timeout=PATIENCE_MS)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Add to a failure what the page shows, and what went wrong in it."""
        try:
            yield
        except Exception as error:
            shown = self.page.evaluate("`${location.hash}\\n${document.body.innerText.slice(0, 3000)}`")
            raise AssertionError(f"{error}\n{self.wrong}\nThe page shows {shown}") from None

    def rest(self) -> None:
        """Wait until two frames were drawn, after which a layout is what it stays."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, name: str) -> None:
        """A picture of the whole page, whose charts exist only near the window; nothing where nobody asks."""
        if PICTURES is None:
            return
        size = self.page.viewport_size
        whole = self.page.evaluate("Math.min(document.documentElement.scrollHeight, 8000)")
        self.page.set_viewport_size({**size, "height": max(whole, size["height"])})
        self.until(
            "[...document.querySelectorAll('figcaption')].every((each) => "
            "each.getBoundingClientRect().top > innerHeight || !each.innerText.startsWith('Reading …'))"
        )
        self.rest()
        self.page.screenshot(path=str(PICTURES / f"{name}-{self.name}.png"), full_page=True)
        self.page.set_viewport_size(size)

    def is_too_wide(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """One browser for all tests of this folder; Playwright's own loop ends with it."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is absent: install etude-workbench[dev]"
    )
    if (path := shutil.which("chromium")) is None:
        pytest.skip("chromium is absent: install the package of this name, as make test does for root")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def look(chromium: Any) -> Callable[..., contextlib.AbstractContextManager[Window]]:
    """Windows on a server; each is closed without an error in its console and a request elsewhere."""

    @contextlib.contextmanager
    def open_window(serving: Serving, width: int = 1280, height: int = 900, **given: Any) -> Iterator[Window]:
        context = chromium.new_context(viewport={"width": width, "height": height}, **given)
        window = Window(context.new_page(), serving.port, f"{given.get('color_scheme', 'light')}-{width}")
        window.page.set_default_timeout(PATIENCE_MS)
        window.page.on("console", lambda said: said.type == "error" and window.wrong.append(said.text))
        window.page.on("pageerror", lambda error: window.wrong.append(str(error)))
        context.on("request", lambda request: _note_foreign(window, request.url))
        window.page.goto(serving.address.link)
        try:
            yield window
        finally:
            context.close()
        assert window.wrong == []

    return open_window


def serious_findings(window: Window, axe: str) -> list[Any]:
    """What axe finds to be serious or critical, with the first places of each."""
    window.page.evaluate(f"window.axe || ({{}}, eval)({json.dumps(axe)})")  # once a page load
    found = window.page.evaluate("axe.run().then((found) => found.violations)")
    return [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="package")
def axe() -> str:
    """The source of axe-core."""
    if not AXE.exists():
        pytest.skip("axe-core is absent: make test installs it where npm is")
    return AXE.read_text("utf-8")


def _note_foreign(window: Window, url: str) -> None:
    if not url.startswith((f"http://127.0.0.1:{window.port}/", "blob:", "data:")):
        window.wrong.append(f"asked {url}")
