"""A minute of what etude promises passes here, and a promise that does not hold is named."""

from pathlib import Path

import pytest

from etude import selftest
from etude.errors import EtudeError


@pytest.fixture(scope="module")
def record() -> dict[str, object]:
    return selftest.run_checks()


def test_every_promise_holds_here(record: dict[str, list[dict[str, str]]]) -> None:
    states = {check["name"]: check["state"] for check in record["checks"]}
    assert states.pop("a GPU learns as the CPU does") in ("passed", "skipped")
    assert set(states.values()) == {"passed"}, record["checks"]
    assert "losses and weights are those of the whole run" in record["checks"][2]["words"]


def test_a_check_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> str:
        raise EtudeError("no\nmore")

    for name in ("_trains", "_goes_on", "_names_damage", "_agrees", "_learns_on_gpu"):
        monkeypatch.setattr(selftest, name, fail)
    told: list[selftest.Check] = []
    record = selftest.run_checks(told.append)
    assert [check["state"] for check in record["checks"]] == ["passed", *["failed"] * 5]
    assert {check.words for check in told[1:]} == {"no more"}
