"""The outcome of a request by its status."""

import pytest

from etude.notify.outcome import identify, judge
from etude.notify.request import Reply


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, "sent"), (204, "sent"), (302, "off"), (400, "refused"), (401, "off"), (404, "off"), (413, "refused"),
     (429, "later"), (500, "later"), (503, "later")],
)  # fmt: skip
def test_a_status_decides_whether_another_try_makes_sense(status: int, state: str) -> None:
    assert judge(Reply(status, {}, b"")).state == state


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7), ("100000", 300), ("-1", 0), ("soon", 0), ("9" * 400, 0)]
)
def test_a_pause_that_a_server_asks_for_is_bounded(said: str, seconds: float) -> None:
    assert judge(Reply(429, {"retry-after": said}, b"")).pause_seconds == seconds


def test_the_name_of_a_quota_does_not_tell_the_secret() -> None:
    assert identify("a", "b") != identify("ab") and "secret" not in identify("secret")
