"""Files made bad: bytes cut, doubled, changed and put in, and values of JSON replaced by odd ones."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 1.5, -0.0, 1e308, 10**18, 10**30, 2**63, -(2**63), "", "x", "a" * 5000, "\0",
    "\ud800", "../../x", "/dev/zero", "\x1b]0;a\x07", "\u202e", "0", "NaN", "1e999", [], {}, [[]], [{}], {"": 0},
    {"a": {"a": {"a": []}}}, [0] * 200, ["x"] * 200,
]  # fmt: skip
_WORDS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\r", b"\n", b"\r\n", b"\x1b[2J", b'"', b"\\", b"{", b"}", b"[", b"]",
    b",", b":", b"=", b"'", b"#", b"NaN", b"Infinity", b"-", b"1e999", b"9" * 400, b"[" * 300, b'{"a":' * 300,
    b'"""', b"\\ud800", b"\xf0\x9f\x98\x80", b"<script>", b"| a | b |", b"$(x)", b"%s", b"1_000", b"0x1f", b"1:30",
]  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn, content: bytes) -> bytes:
    """A content with some of its bytes changed, or none of it."""
    if draw(st.integers(0, 40)) == 0:
        return draw(st.binary(max_size=2000))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = min(at + draw(st.integers(0, 60)), len(content))
        how = draw(st.sampled_from(("cut", "drop", "double", "put", "change", "swap")))
        if how == "cut":
            content = content[:at]
        elif how == "drop":
            content = content[:at] + content[end:]
        elif how == "double":
            content = content[:end] + content[at:]
        elif how == "put":
            content = content[:at] + draw(st.sampled_from(_WORDS)) + content[at:]
        elif how == "swap":
            content = content[:at] + draw(st.sampled_from(_WORDS)) + content[end:]
        else:
            content = content[:at] + draw(st.binary(min_size=end - at, max_size=end - at)) + content[end:]
    return content


@st.composite
def with_odd_values(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, or lines of it, with some values, keys or whole objects replaced; the form stays that of the file."""
    lines, ends = content.split(b"\n"), b"\n"
    is_whole = content.lstrip().startswith(b"{") and _parsed(content) is not None
    if is_whole:
        lines = [content]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        if (value := _parsed(lines[at])) is not None:
            lines[at] = json.dumps(_replaced(draw, copy.deepcopy(value))).encode("utf-8", "surrogatepass")
    return ends.join(lines)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    """A value with one of its parts, drawn from the outside in, replaced or gone."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 12)) == 0:
        return draw(st.sampled_from(ODD))
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    how = draw(st.integers(0, 8))
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, dict):
        value[str(draw(st.sampled_from(ODD)))] = value[key]
    else:
        value[key] = _replaced(draw, value[key])
    return value
