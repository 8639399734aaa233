"""The files of the page are there at once, and its routes follow: a route that fails to load is a fault."""

import subprocess
import sys

import pytest

from etude.ui import routes
from tests.ui.serving import serving


def test_the_page_is_served_with_an_etag_that_spares_the_body() -> None:
    with serving() as served:
        status, headers, body = served.ask("/")
        assert status == 200 and b"<html" in body
        status, _, body = served.ask("/static/index.html", **{"if-none-match": headers["etag"]})
        assert (status, body) == (304, b"")
        assert served.ask("/", method="HEAD")[2] == b""


def test_routes_that_cannot_be_made_are_a_fault_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("canary-4711")

    monkeypatch.setattr(routes, "Routes", fail)
    with serving() as served:
        assert served.ask("/")[0] == 200
        status, _, body = served.ask("/api/about")
        assert (status, body) == (500, b'{"error": "etude failed: ImportError"}')
        assert "canary-4711" in served.faults[0]


def test_what_the_link_waits_for_imports_no_recipe_and_no_records() -> None:
    code = (
        "import sys, etude.cli.ui, etude.ui.server, etude.ui.connections\n"
        "print(*({'pydantic', 'numpy', 'etude.records', 'etude.recipe', 'etude.sweep'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_the_list_of_runs_and_a_chart_wait_for_no_sweep_and_no_comparison() -> None:
    code = "import sys, etude.ui.routes\nprint(*({'etude.sweep', 'etude.report.compare'} & sys.modules.keys()))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
