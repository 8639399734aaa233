"""Messages: their ranks, and values that are none."""

import pytest

from etude.notify.message import Message


def test_a_message_is_the_same_after_a_line_of_json() -> None:
    message = Message("finding", "warning", "cause", "run", 3, "title", "text", {"loss": 1.0}, ["etude runs"])
    assert Message.of(message.to_dict()) == message
    assert message.full == "title\ntext\netude runs"
    with pytest.raises(ValueError, match="severity"):
        Message.of({**message.to_dict(), "severity": "odd"})


def test_faults_matter_more_than_ends_and_ends_more_than_the_rest() -> None:
    given = [("fault", "error"), ("finished", "info"), ("finding", "error"), ("finding", "warning")]
    assert [Message(*each, "c", "r", 0, "t", "x").rank for each in given] == [0, 1, 2, 3]
    assert Message("evaluation", "info", "c", "r", 0, "t", "x").rank == 3
