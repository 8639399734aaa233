"""Arrays go as numbers, never as objects, and come back bit for bit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from etude.evaluate.arrays import is_array, is_number, read_array, write_array

_NUMBERS = (
    arrays.boolean_dtypes()
    | arrays.integer_dtypes()
    | arrays.floating_dtypes()
    | arrays.complex_number_dtypes()
)


@given(arrays.arrays(_NUMBERS, arrays.array_shapes(min_dims=0, min_side=0)))
def test_an_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    assert is_array(array) and not is_number(array)
    back = read_array(*json.loads(json.dumps(write_array(array))))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    back[...] = 0  # may be changed


def test_a_number_comes_back_with_its_type() -> None:
    for number in (np.int8(-3), np.bool_(True), np.float16(0.5), np.complex64(1j)):
        assert is_number(number) and not is_array(number)
        back = read_array(*write_array(number))
        assert back == number and type(back) is type(number)


def test_objects_are_no_arrays_of_numbers() -> None:
    for value in (np.array([object()]), np.array(["a"]), np.datetime64("2026-01-01"), [1], 1, None):
        assert not is_array(value) and not is_number(value)


@pytest.mark.parametrize(
    "written",
    [("|O", "00" * 8, None), ("O8", "00" * 8, [1]), ("<f3", "00" * 3, [1]), ("<f8", "zz", [1]), ("<f8", "", None),
     ("<f8", "00" * 8, [2]), ("<f8", "00" * 8, "x"), (None, "", []), ("<i8", None, [1])],
)  # fmt: skip
def test_what_is_no_array_is_refused(written: tuple[str, str, list[int]]) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        read_array(*written)
