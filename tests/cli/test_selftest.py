"""`etude selftest`: the record that is printed, and the exit code."""

import json
from collections.abc import Callable

import pytest

from etude import selftest
from etude.checks import Check
from tests.conftest import Outcome


@pytest.mark.parametrize("state, code", [("passed", 0), ("failed", 1)])
def test_a_record_is_printed_and_a_failure_is_the_exit_code(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, etude: Callable[..., Outcome]
) -> None:
    check = Check("a run trains", state, "it did or did not", 1.25)
    monkeypatch.setattr(selftest, "run_all", lambda checks: iter([check]))
    ended = etude("selftest")
    assert ended.code == code and f"a run trains: {state}" in ended.err
    assert f"{state}: a run trains: it did or did not (1.2 s)" in ended.out and "torch" in ended.out
    ended = etude("selftest", "--json")
    assert ended.code == code and json.loads(ended.out)["checks"][0]["state"] == state


@pytest.mark.parametrize("state, code", [("passed", 0), ("doubtful", 0), ("failed", 1)])
def test_what_keeps_a_machine_from_training_is_the_exit_code(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, etude: Callable[..., Outcome]
) -> None:
    from etude import doctor

    monkeypatch.setattr(doctor, "examine", lambda runs: iter([Check("memory", state, f"for {runs}", 0.5)]))
    ended = etude("doctor", "--runs", "here")
    assert ended.code == code and ended.out == f"{state}: memory: for here\n"
    ended = etude("doctor", "--json")
    assert ended.code == code and json.loads(ended.out)["checks"][0]["words"] == "for runs"
