"""Routes ask for what is there with plain values, within bounds."""

from pathlib import Path

import pytest
from starlette.routing import Route

from etude.ui.library import Library
from etude.ui.routes import Routes
from tests.report.runs import finished_run
from tests.ui.serving import serving

READING = [
    route.path
    for route in Routes(Library([]), "1", read_only=False, told=print).router.routes
    if isinstance(route, Route)
    and "GET" in (route.methods or ())
    and "{" not in route.path.replace("{id}", "")
]


@pytest.mark.parametrize("path", [path for path in READING if "{id}" in path])
def test_a_run_that_is_not_there_is_missing_everywhere(path: str, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        status, _, body = served.ask(path.replace("{id}", "nothing"))
        assert status == 404 and b"nothing" in body
        assert served.faults == []


def test_a_query_that_is_no_number_or_too_long_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path).info["id"]
    with serving(tmp_path) as served:
        for query in ("points=x", "points=1e9", "from=nan", "to=inf", f"names={'a,' * 61}"):
            status, _, body = served.ask(f"/api/runs/{run}/series?{query}")
            assert status == 400 and body.startswith(b'{"error"')
