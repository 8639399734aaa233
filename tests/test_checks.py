"""Each check has an outcome, whatever it raises, and the next one still runs."""

from collections.abc import Callable

from etude.checks import Absent, Doubt, require, run_all
from etude.errors import InputError


def _raising(error: Exception) -> Callable[[], str]:
    def check() -> str:
        raise error

    return check


def test_what_a_check_returns_or_raises_is_its_state_and_a_line_of_words() -> None:
    checks = [
        ("a", lambda: "eight\ngood"),
        ("b", _raising(Absent("no GPU"))),
        ("c", _raising(Doubt("little memory"))),
        ("d", _raising(InputError("no\x1b[31m disk"))),
        ("e", _raising(ZeroDivisionError("by zero"))),
        ("f", lambda: str(require(False, "not so"))),
        ("g", lambda: "after all"),
    ]
    found = list(run_all(checks))
    assert [(each.name, each.state) for each in found] == [
        ("a", "passed"), ("b", "skipped"), ("c", "doubtful"), ("d", "failed"), ("e", "failed"), ("f", "failed"),
        ("g", "passed"),
    ]  # fmt: skip
    assert [each.words for each in found[:3]] == ["eight good", "no GPU", "little memory"]
    assert "\x1b" not in found[3].words
    assert [each.words for each in found[4:6]] == ["ZeroDivisionError: by zero", "not so"]
