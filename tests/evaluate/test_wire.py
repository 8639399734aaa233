"""Calls between a sample and its tests: data goes by value, all else by reference, and nothing runs on the way."""

import os
import threading
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.wire import EndedError, Peer

_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
_HASHABLE = _PLAIN | st.tuples(_PLAIN, _PLAIN) | st.frozensets(_PLAIN) | st.complex_numbers(allow_nan=False)
_VALUES = st.recursive(
    _HASHABLE,
    lambda inner: st.lists(inner) | st.dictionaries(_HASHABLE, inner) | st.sets(_HASHABLE) | st.tuples(inner),
    max_leaves=20,
)


@pytest.fixture
def tests() -> Iterator[tuple[Peer, dict[str, Any]]]:
    """The side of the tests, and the names of the sample that it asks."""
    names: dict[str, Any] = {}
    (a, b), (c, d) = os.pipe(), os.pipe()
    sample = Peer(a, d, is_guarded=False)
    thread = threading.Thread(target=sample.serve, args=(names.__getitem__,))
    thread.start()
    yield Peer(c, b, is_guarded=True), names
    os.close(b)
    thread.join(60)
    for end in (a, c, d):
        os.close(end)


@given(_VALUES)
def test_data_comes_back_as_it_was(value: object) -> None:
    peer = Peer(-1, -1, is_guarded=True)
    back = peer.decode(peer.encode(value))
    assert back == value and type(back) is type(value)
    assert not isinstance(value, float) or repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        Fraction(2, 3),
        date(2026, 1, 2),
        datetime(2026, 1, 2, 3),
        timedelta(1, 2, 3),
        range(1, 9, 2),
        deque([1]),
        int,
        bytearray(b"x"),
        float("inf"),
    ],
)
def test_data_of_the_library_comes_back_too(value: object) -> None:
    peer = Peer(-1, -1, is_guarded=True)
    assert peer.decode(peer.encode(value)) == value


def test_classes_that_are_data_come_as_that_data() -> None:
    peer = Peer(-1, -1, is_guarded=True)

    class Lying(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    for value, plain in (
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (Lying(3), 3),
    ):
        back = peer.decode(peer.encode(value))
        assert back == plain and type(back) is type(plain)
    assert peer.decode(peer.encode(Lying(3))) != 4


def test_tuples_with_names_have_them_on_the_other_side_too() -> None:
    peer, point = Peer(-1, -1, is_guarded=True), namedtuple("point", "x y")
    back = peer.decode(peer.encode([point(1, [2])]))[0]
    assert back == (1, [2]) and (back.x, back.y) == (1, [2]) and repr(back) == "point(x=1, y=[2])"


def test_views_of_a_dict_equal_sets() -> None:
    peer, table = Peer(-1, -1, is_guarded=True), {1: 2, 3: 4}
    assert peer.decode(peer.encode(table.keys())) == {1, 3}
    assert peer.decode(peer.encode(table.items())) == {(1, 2), (3, 4)}


def test_what_a_call_returns_of_its_arguments_is_the_callers_own(tests) -> None:
    peer, names = tests
    names["f"] = lambda a, b: (b.append(3), b)[1]
    a, b = [1], [2]
    assert peer.ask("find", "f")(a, b) is b and b == [2, 3] and a == [1]


def test_numbers_and_arrays_of_numpy_are_used_as_in_one_process(tests) -> None:
    peer, names = tests
    names["double"] = lambda x: x * 2
    names["fill"] = lambda x: x.fill(7)
    names["count"] = lambda: np.int64(2)
    names["found"] = lambda: [np.bool_(True), (np.int8(3),)]
    array = np.array([[1, 2], [3, 4]], dtype=np.float32)
    back = peer.ask("find", "double")(array)
    assert isinstance(back, np.ndarray) and back.dtype == np.float32 and (back == array * 2).all()
    assert peer.ask("find", "fill")(array) is None and (array == 7).all()
    assert peer.ask("find", "count")() == 2 and peer.ask("find", "found")() == [True, (3,)]


def test_a_call_changes_what_it_was_given_as_it_does_in_one_process(tests) -> None:
    peer, names = tests
    names["f"] = lambda numbers, table: (numbers.sort(), table.update(x=1), numbers.append(9))[0]
    numbers, table = [3, 1, 2], {}
    assert peer.ask("find", "f")(numbers, table) is None
    assert (numbers, table) == ([1, 2, 3, 9], {"x": 1})


def test_objects_of_the_sample_can_be_used_and_equal_no_data(tests) -> None:
    peer, names = tests

    class Stack:
        def __init__(self, *items: int) -> None:
            self.items = list(items)

        def push(self, item: int) -> "Stack":
            self.items.append(item)
            return self

        def __len__(self) -> int:
            return len(self.items)

        def __iter__(self) -> Iterator[int]:
            return iter(self.items)

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = object.__hash__

    names["Stack"] = Stack
    kind = peer.ask("find", "Stack")
    stack = kind(1).push(2)
    assert (len(stack), list(stack), stack.items) == (2, [1, 2], [1, 2])
    stack.items = [7]
    assert list(stack) == [7] and isinstance(stack, kind) and not isinstance(3, kind)
    assert stack != 5 and stack == kind(8)


def test_generators_and_functions_work_on_both_sides(tests) -> None:
    peer, names = tests
    names["count"] = lambda: (n * n for n in range(4))
    names["apply"] = lambda function, items: [function(item) for item in items]
    assert list(peer.ask("find", "count")()) == [0, 1, 4, 9]
    assert peer.ask("find", "apply")(lambda x: x + 1, iter([1, 2])) == [2, 3]


def test_errors_come_by_their_names(tests) -> None:
    peer, names = tests

    class OwnError(ValueError):
        pass

    def fail(kind: str) -> None:
        raise {"own": OwnError, "key": KeyError, "exit": SystemExit, "unicode": None}[kind]("words")

    names["fail"], names["OwnError"] = fail, OwnError
    with pytest.raises(KeyError):
        peer.ask("find", "fail")("key")
    with pytest.raises(peer.ask("find", "OwnError"), match="words"):
        peer.ask("find", "fail")("own")
    with pytest.raises(RuntimeError, match="words"):
        peer.ask("find", "fail")("exit")
    with pytest.raises(TypeError):
        peer.ask("find", "fail")("unicode")
    with pytest.raises(KeyError):
        peer.ask("find", "none")


def test_a_sample_does_with_objects_of_the_tests_what_their_use_needs(tests) -> None:
    peer, names = tests
    thing = SimpleNamespace(value=1)
    names["look"] = getattr
    for given_thing, name in ((lambda: 1, "__globals__"), (thing, "value"), ((n for n in ()), "gi_frame")):
        with pytest.raises(PermissionError):
            peer.ask("find", "look")(given_thing, name)
    own = type("Node", (), {"__module__": "tests", "value": 5, "_hidden": 6})()
    assert peer.ask("find", "look")(own, "value") == 5
    with pytest.raises(PermissionError):
        peer.ask("find", "look")(own, "_hidden")


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {},
        {"dict": 3},
        {"tuple": 3},
        {"a": 1, "b": 2},
        {"yours": 99},
        {"yours": []},
        {"int": "x"},
        {"mine": "x"},
        {"bytes": 3},
        {"type": "os"},
        {"set": [{"list": []}]},
        {"decimal": "x"},
        {"range": [0, 1, 0]},
        {"fraction": "1/0"},
        {"error": 5},
    ],
)
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises((EndedError, TypeError)):
        Peer(-1, -1, is_guarded=True).decode(value)


@pytest.mark.parametrize("data", [b"", b"\0" * 8, (1 << 40).to_bytes(8, "little"), (3).to_bytes(8, "little") + b"[1]", (2).to_bytes(8, "little") + b"{x", (1 << 24).to_bytes(8, "little") + b"[" * (1 << 24)])  # fmt: skip
def test_what_is_no_message_ends_the_talk(data: bytes) -> None:
    read, write = os.pipe()

    def send() -> None:
        rest = data
        while rest:
            rest = rest[os.write(write, rest) :]
        os.close(write)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(EndedError):
        Peer(read, -1, is_guarded=True).receive()
    thread.join(60)
    os.close(read)
