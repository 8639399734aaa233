"""Numbers as logs write them: `1,234`, `12.5%`, `"NaN"`, `1.2k`, `tensor(2.31)`, and blanks for none."""

import math
import re

_WRAPPERS = r"(?:(?:tensor|array|(?:np|numpy|torch|jnp)\.\w{1,20})\(|\[)?"
NUMBER = (
    r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?"
    r"|[-+]?(?i:nan|inf(?:inity)?)\b"
)
# A number between what a printer of objects puts around it.
WRAPPED = rf"{_WRAPPERS}(?P<value>{NUMBER})"
_WHOLE = re.compile(rf"\s*[\"']?\s*{WRAPPED}\s*(?P<suffix>%|[kKM]\b)?\s*(?P<rest>.*)", re.DOTALL)
_SUFFIXES = {"%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6}
_REST = re.compile(r"[\])\"'\s]*(?:,\s*\w+=[^,]*)*[\])\"'\s]*")  # `, device='cuda:0', grad_fn=<...>)`
_LONGEST = 400


def number_of(value: object) -> float | None:
    """The number that a cell or a value of JSON holds; None if it holds none, as a blank or a word."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float_of(value)
    if not isinstance(value, str) or len(value) > _LONGEST or not value.strip():
        return None
    if not (found := _WHOLE.fullmatch(value)) or not _REST.fullmatch(found["rest"]):
        return None
    return parse(found["value"], found["suffix"])


def parse(digits: str, suffix: str | None = None) -> float:
    """The number of a text that NUMBER matches, times its suffix."""
    return float(digits.replace(",", "")) * _SUFFIXES.get(suffix or "", 1.0)


def float_of(value: float) -> float:
    """A number of JSON as a float; whole ones beyond its range are infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
