"""The page below the path of a proxy: everything that it asks for lies below that path."""

from pathlib import Path
from typing import Any

import pytest

from etude.control.mailbox import FILE
from tests.processes import wait_for
from tests.report.runs import attempt, evaluation, new_run, window
from tests.ui.browser.conftest import PATIENCE_MS
from tests.ui.proxying import proxying
from tests.ui.serving import serving


@pytest.mark.parametrize("strips", [True, False])
def test_a_browser_looks_at_a_run_and_steers_it_below_the_path_of_a_proxy(
    strips: bool, tmp_path: Path, chromium: Any
) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 10), evaluation(10, 3.0))
    with (
        proxying("/user/me/proxy/8171", strips=strips) as (proxy, leads_to),
        serving(tmp_path, url=None if strips else proxy.url) as served,
    ):
        leads_to.append(served.port)
        context = chromium.new_context()
        page, wrong = context.new_page(), list[str]()
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        context.on("request", lambda asked: asked.url.startswith(proxy.url) or wrong.append(asked.url))
        page.goto(f"{proxy.url}?token={served.address.token}")
        assert page.url.partition("#")[0] == proxy.url
        (cookie,) = context.cookies()
        assert (cookie["path"], cookie["httpOnly"]) == ("/user/me/proxy/8171", True)
        page.goto(f"{proxy.url}#/run/{writer.run.info['id']}")
        page.wait_for_selector("canvas", timeout=PATIENCE_MS)
        writer.append(*window(11, 12))
        page.wait_for_selector("text=step 12", timeout=PATIENCE_MS)
        page.get_by_role("button", name="Checkpoint").click()
        page.wait_for_function("() => document.body.innerText.includes('Checkpoint')", timeout=PATIENCE_MS)
        wait_for(lambda: page.wait_for_timeout(20) or (writer.run.path / FILE).exists())
        context.close()
    assert wrong == []
    writer.close("stopped")
