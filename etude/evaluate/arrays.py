"""Arrays and numbers of numpy as JSON, between interpreters that do not trust each other."""

import re
import sys
from typing import Any

_KINDS = re.compile(r"[<>|=][biufc]\d{1,2}")  # numbers and truth values, never objects


def is_array(value: Any) -> bool:
    """True for an array of numbers."""
    numpy = sys.modules.get("numpy")  # whoever has an array has loaded it
    return numpy is not None and isinstance(value, numpy.ndarray) and _is_plain(value)


def is_number(value: Any) -> bool:
    """True for a number of numpy's own types."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic) and _is_plain(value)


def write_array(value: Any) -> list[Any]:
    """Type, bytes in hexadecimal and shape of an array or number; a number has no shape."""
    import numpy

    if isinstance(value, numpy.generic):
        return [value.dtype.str, value.tobytes().hex(), None]
    return [value.dtype.str, numpy.ndarray.tobytes(value).hex(), list(value.shape)]


def read_array(kind: str, written: str, shape: list[int] | None) -> Any:
    """The array or number that was written so. Raises: ValueError, TypeError or IndexError if none was."""
    import numpy

    if not _KINDS.fullmatch(kind):
        raise ValueError(f"{kind[:20]!r} is no type of numbers")
    numbers = numpy.frombuffer(bytes.fromhex(written), numpy.dtype(kind))
    return numbers[0] if shape is None else numbers.reshape(shape).copy()


def _is_plain(value: Any) -> bool:
    return _KINDS.fullmatch(str(value.dtype.str)) is not None
