"""Routes answer with what the payload functions return, and say their errors in one line."""

from pathlib import Path

import pytest

from etude.errors import InputError, MissingError
from etude.ui import app
from tests.report.runs import finished_run
from tests.ui.serving import serving


def test_unknown_runs_and_addresses_are_told_in_one_line(tmp_path: Path) -> None:
    finished_run(tmp_path)
    with serving(tmp_path) as served:
        status, headers, body = served.ask("/api/runs/nothing/requests/x")
        assert status == 404 and body == b'{"error": "there is no run nothing here"}'
        assert headers["content-type"] == "application/json"
        assert served.ask("/api/other")[0] == 404 and served.ask("/api/runs/")[0] == 404


def test_the_page_is_served_with_an_etag_that_spares_the_body() -> None:
    with serving() as served:
        status, headers, body = served.ask("/")
        assert status == 200 and b"<html" in body
        status, _, body = served.ask("/static/index.html", **{"if-none-match": headers["etag"]})
        assert (status, body) == (304, b"")
        assert served.ask("/", method="HEAD")[2] == b""


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (InputError("give another"), 400, "give another"), (MissingError("no file"), 404, "no file"),
        (PermissionError(13, "denied"), 500, "denied"),
        (KeyError("canary-4711"), 500, "etude failed: KeyError"),
    ],
)  # fmt: skip
def test_errors_of_payloads_have_their_status_and_faults_their_kind_alone(
    raised: Exception, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(app, "_payload", lambda module, function: fail)
    with serving() as served:
        found, _, body = served.ask("/api/schema")
        assert found == status and text in body.decode() and b"canary" not in body
        assert served.ask("/api/schema")[0] == status
        assert len(served.faults) == isinstance(raised, KeyError)  # told once


def test_numbers_that_are_not_finite_and_lone_surrogates_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"value": float("nan"), "text": "\ud800"}
    monkeypatch.setattr(app, "_payload", lambda module, function: lambda *_: odd)
    with serving() as served:
        assert served.get("/api/schema") == {"value": "nan", "text": "\ud800"}


def test_a_query_that_is_no_number_or_too_long_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path).info["id"]
    with serving(tmp_path) as served:
        for query in ("points=x", "points=1e9", "from=nan", "to=inf", f"names={'a,' * 61}"):
            status, _, body = served.ask(f"/api/runs/{run}/series?{query}")
            assert status == 400 and body.startswith(b'{"error"')
