"""Fields of protobuf messages."""

import math
import random

import pytest

from etude.watch.logs.protobuf import fields_of, part, texts, unpack_floats, whole

event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")


def test_fields_are_those_that_the_package_of_protobuf_wrote() -> None:
    event = event_pb2.Event(wall_time=1.5, step=-7, file_version="ignored")
    assert whole(event.SerializeToString(), 2) == -7
    event = event_pb2.Event(wall_time=1.5, step=2**40)
    event.summary.value.add(tag="löss", simple_value=0.25)
    event.summary.value.add(tag="b", simple_value=math.inf)
    message = event.SerializeToString()
    assert whole(message, 2) == 2**40 and unpack_floats(part(message, 1), "d") == [1.5]
    values = [value for number, value in fields_of(part(message, 5)) if number == 1]
    assert [texts(value, 1) for value in values if isinstance(value, bytes)] == [["löss"], ["b"]]
    assert part(message, 9, 9) == b"" and whole(message, 77) == 0


def test_bytes_that_are_no_message_are_refused_and_never_run_on() -> None:
    draw = random.Random(17)
    for _ in range(2000):
        content = draw.randbytes(draw.randrange(40))
        try:
            assert sum(
                len(field.value) for field in fields_of(content) if isinstance(field.value, bytes)
            ) <= len(content)
        except ValueError:
            continue
    with pytest.raises(ValueError, match="beyond the end"):
        list(fields_of(b"\x0a\xff\xff\xff\xff\x07x"))
    with pytest.raises(ValueError, match="without an end"):
        list(fields_of(b"\x08" + b"\xff" * 20))
