"""Routes answer with what the payload functions return, and say their errors in one line."""

from pathlib import Path

import pytest

from etude.errors import InputError, MissingError
from etude.ui import routes
from tests.report.runs import finished_run
from tests.ui.serving import serving


def test_unknown_runs_and_addresses_are_told_in_one_line(tmp_path: Path) -> None:
    finished_run(tmp_path)
    with serving(tmp_path) as served:
        status, headers, body = served.ask("/api/runs/nothing/requests/x")
        assert status == 404 and body == b'{"error": "there is no run nothing here"}'
        assert headers["content-type"] == "application/json"
        assert served.ask("/api/other")[0] == 404 and served.ask("/api/runs/")[0] == 404


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

    monkeypatch.setattr(routes, "schema", fail)
    with serving() as served:
        found, _, body = served.ask("/api/schema")
        assert found == status and text in body.decode() and b"canary" not in body
        assert served.ask("/api/schema")[0] == status
        assert len(served.faults) == isinstance(raised, KeyError)  # told once


def test_numbers_that_are_not_finite_and_lone_surrogates_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"value": float("nan"), "text": "\ud800"}
    monkeypatch.setattr(routes, "schema", lambda: odd)
    with serving() as served:
        assert served.get("/api/schema") == {"value": "nan", "text": "\ud800"}
