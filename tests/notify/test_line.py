"""LINE's Messaging API: outcomes of a push, the allowance, and the length of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.notify.line import Line, cut
from etude.notify.message import Message
from etude.notify.outcome import Room
from tests.notify.server import TOKEN, USER, Service, serving

KEY = "123e4567-e89b-12d3-a456-426614174000"
MESSAGE = Message("fault", "error", "fault", "run", 3, "run: it failed", "details")


def line(service: Service, *, to: str = USER, token: str = TOKEN, seconds: float = 0.3) -> Line:
    return Line(token, to, api=service.url, seconds=seconds)


@pytest.mark.parametrize(
    ("fault", "state", "why"),
    [
        ("ok", "sent", ""),
        ("400", "refused", "HTTP 400: The property"),
        ("401", "off", "LINE refused the token (HTTP 401: Authentication failed)"),
        ("500", "later", "HTTP 500"),
        ("301", "refused", "HTTP 301"),
        ("rate", "later", "too many at once"),
        ("lost", "later", "no answer in time"),
        ("hang", "later", "no answer in time"),
        ("drop", "later", "no answer"),
    ],
)
def test_each_answer_has_its_outcome_and_no_redirect_is_followed(fault: str, state: str, why: str) -> None:
    with serving(Service([fault])) as service:
        outcome = line(service).send(MESSAGE, KEY)
        assert outcome.state == state and why in outcome.why
        assert [each for each in service.asked if each.startswith("POST")] == ["POST /v2/bot/message/push"]
        assert service.headers[0]["X-Line-Retry-Key"] == KEY
        assert service.bodies[0] == {"to": USER, "messages": [{"type": "text", "text": MESSAGE.full}]}


def test_a_message_whose_answer_was_lost_is_not_delivered_again() -> None:
    with serving(Service(["lost", "ok"])) as service:
        channel = line(service)
        assert [channel.send(MESSAGE, KEY).state for _ in range(2)] == ["later", "sent"]
        assert service.delivered == [MESSAGE.full]


def test_429_is_the_end_of_the_allowance_only_if_the_quota_says_so() -> None:
    with serving(Service(quota=0)) as service:
        outcome = line(service).send(MESSAGE, KEY)
        assert outcome.state == "held" and "allowance of 0 messages is used up" in outcome.why
        assert service.asked[1:] == ["GET /v2/bot/message/quota", "GET /v2/bot/message/quota/consumption"]
    with serving(Service(["rate"], quota=None)) as service:
        assert line(service).send(MESSAGE, KEY).state == "later"


def test_the_allowance_counts_every_member_of_a_group() -> None:
    with serving(Service(quota=200, members=10)) as service:
        channel = line(service, to="C" + "0" * 32)
        assert channel.room() == Room(20, 20)
        channel.send(MESSAGE, KEY)
        assert channel.room() == Room(19, 20) and service.used == 10
    with serving(Service(quota=None)) as service:
        assert line(service).room() is None


@given(st.text(alphabet=st.sampled_from("aé漢😀\n"), max_size=40), st.integers(1, 700))
def test_a_text_of_any_length_fits_as_line_counts_it_and_keeps_its_end(text: str, times: int) -> None:
    whole = text * times + "etude resume RUN"
    shown = cut(whole)
    assert len(shown.encode("utf-16-le")) <= 10_000 and shown.endswith("etude resume RUN")
    assert shown == whole or "\n...\n" in shown
