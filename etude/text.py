"""Text from elsewhere, made safe for a terminal, a log line or a message."""

import re
import shlex
import unicodedata

_MOST_CHARACTERS, _MOST_OF_A_VALUE = 300, 80
_DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m(?:in)?)?(?:([0-9]{1,6})s)?"
)


def clean(text: str) -> str:
    """Text that cannot drive a terminal or hide in it: such characters become visible escapes, as `\\x1b`.

    These are all control, format (bidirectional, zero-width), private and unassigned characters and
    surrogates; new lines, tabs and spaces of any width stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return re.sub(r"[^ -~\n\t]+", lambda found: _escape(found[0]), text.replace("\r\n", "\n"))


def printable(text: object) -> str:
    """Clean text on one line, a space for each character that is white space."""
    return re.sub(r"\s", " ", clean(str(text)))


def one_line(text: object, width: int = 200) -> str:
    """Clean text on one line, runs of white space as one space, cut to a width in characters."""
    line = " ".join(clean(str(text)).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def command(*words: object) -> str:
    """A command line in which a shell takes each word as it stands: `etude show 'a b'`."""
    return shlex.join(map(str, words))


def plural(count: float, noun: str) -> str:
    """`1 step`, `2 steps`, `0.214 epochs`."""
    shown = f"{count:.3g}" if isinstance(count, float) and count < 1000 else f"{count:,.0f}"
    return f"{shown} {noun}{'' if shown == '1' else 's'}"


def verb(count: int, word: str) -> str:
    """`is`, `has` or `holds` for one, `are`, `have` or `hold` for any other number."""
    return word if count != 1 else {"are": "is", "have": "has", "were": "was"}.get(word, f"{word}s")


def expected(seconds: float, memory_bytes: float, disk_bytes: float) -> str:
    """A forecast to two digits: `about 50 s, 400 MB of memory, 1.5 MB on disk`."""
    memory, disk = rough_size(memory_bytes), rough_size(disk_bytes)
    return f"about {rough_duration(seconds)}, {memory} of memory, {disk} on disk"


def rough_duration(seconds: float) -> str:
    """Seconds to two digits in one unit."""
    units = {"h": 3600, "min": 60, "s": 1}
    unit = next((unit for unit, length in units.items() if seconds >= 1.5 * length), "s")
    value = seconds / units[unit]
    return f"{f'{value:.2g}' if value < 99.5 else f'{value:,.0f}'} {unit}"


def parse_duration(text: str) -> float:
    """Seconds of a duration as people write it, as `11h30m`, `90s` or `2d`.

    Raises: ValueError if it is none, or no time at all.
    """
    found = _DURATION.fullmatch(text)
    units = (86400, 3600, 60, 1)
    seconds = (
        sum(int(part or 0) * unit for part, unit in zip(found.groups(), units, strict=True)) if found else 0
    )
    if not seconds:
        raise ValueError("it must be a duration in d, h, m and s, as 11h30m or 90s")
    return float(seconds)


def rough_price(amount: float, interval: tuple[float, float], each: float) -> str:
    """A price to two digits, its interval, and that of an hour: `about 3.20 (1.90 to 6.50), ...`."""
    low, high = map(_rough_amount, interval)
    what = "below 0.01" if interval[1] < 0.01 else f"about {_rough_amount(amount)} ({low} to {high})"
    return f"{what}, at {each:,.4g} for an hour of one device"


def rough_size(count: float) -> str:
    """Bytes to two digits."""
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit, size in units.items() if float(f"{count:.2g}") >= size), "kB")
    value = float(f"{count / units[unit]:.2g}")
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def shorten(text: object, most: int = _MOST_CHARACTERS) -> str:
    """Clean text on one line of at most so many characters: first long values are cut, then the middle."""
    line = printable(_cut(str(text), 1 << 15))
    if len(line) > most:
        line = re.sub(rf"\S{{{_MOST_OF_A_VALUE + 1},}}", lambda found: _cut(found[0], _MOST_OF_A_VALUE), line)
    return _cut(line, most)


def kind_of(value: object) -> str:
    """The kind of a value, in the words of JSON and with its article: `a number`, `an object`, `null`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value != value:
        return "NaN"
    kinds = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    name = type(value).__name__
    return kinds.get(type(value)) or f"{'an' if name[0] in 'AEIOUaeio' else 'a'} {name}"


def _rough_amount(amount: float) -> str:
    value = float(f"{amount:.2g}")
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in "\u2028\u2029":  # separators of lines and paragraphs
        return "\n"
    is_shown = unicodedata.category(character)[0] != "C"
    return character if is_shown else character.encode("unicode_escape").decode("ascii")


def _cut(text: str, most: int) -> str:
    """The start and the end of a text that is too long; a message ends with its advice."""
    if len(text) <= most:
        return text
    tail = (most - 3) * 2 // 5
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"
