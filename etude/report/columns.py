"""Tables and sentences within the width of a terminal."""

import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from etude.text import one_line, printable

_WIDEST_NAME = 24
_LEAST_WIDTH = 7
_LONGEST = 4000


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, and a cell for each column. Texts may be cut to fit, figures may not."""

    name: str
    cells: Sequence[str]
    is_text: bool = False


def lay_out(rows: Sequence[Row], width: int) -> list[str]:
    """The lines of a table whose first row is the header.

    Columns that do not fit beside each other follow below, each part with its header.
    """
    long = [row.name for row in rows if len(row.name) > _WIDEST_NAME]
    short = dict(zip(long, shorten_apart(long, _WIDEST_NAME)))
    count, names = len(rows[0].cells), [short.get(row.name, row.name) for row in rows]
    left = max(map(len, names))
    figures = max((len(cell) for row in rows if not row.is_text for cell in row.cells), default=0)
    texts = max((len(printable(cell)) for row in rows if row.is_text for cell in row.cells), default=0)
    gap = 2 if left + count * (2 + max(figures, _LEAST_WIDTH)) <= width else 1
    each = max(figures, min(texts, (width - left) // max(count, 1) - gap), _LEAST_WIDTH)
    at_once = max((width - left) // (each + gap), 1)
    lines: list[str] = []
    for low in range(0, count, at_once):
        lines += [""] if low else []
        for name, row in zip(names, rows):
            cells = shorten_apart(row.cells, each) if row.is_text else row.cells
            shown = "".join(f"{'':{gap}}{cell:>{each}}" for cell in cells[low : low + at_once])
            lines.append(f"{name:<{left}}{shown}".rstrip())
    return lines


def wrap(sentence: str, width: int) -> list[str]:
    """A sentence in lines of a width, broken between words; those after the first are indented."""
    return textwrap.wrap(
        printable(sentence), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def wrap_command(command: str, width: int) -> list[str]:
    """A command, indented, in lines of a width that can be copied as they are."""
    words = printable(command).split(" ")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 5 > width:  # of indent, blank and backslash
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return [f"  {line} \\" for line in lines[:-1]] + [f"  {lines[-1]}"]


def shorten_apart(texts: Sequence[str], width: int) -> list[str]:
    """Texts of at most a width: without what all begin and end with, then cut in the middle.

    Texts that differ still do.
    """
    whole = [one_line(text, _LONGEST) for text in texts]
    if max(map(len, whole), default=0) <= width:
        return whole
    start = _common_start(sorted(set(whole)))
    kept = [f"…{text[start:]}" if start > 1 else text for text in whole]
    end = _common_start(sorted({text[::-1] for text in kept})) if max(map(len, kept)) > width else 0
    kept = [f"{text[:-end]}…" if end > 1 else text for text in kept]
    tails = sorted(range(width - 1), key=lambda size: abs(size - (width - 1) // 2))
    ends = [width - 1] if any("/" in text for text in kept) else []  # the end of a path says most
    for tail in [*ends, *tails]:
        cut = [_cut_middle(text, width, tail) for text in kept]
        if len(set(cut)) == len(set(whole)):
            return cut
    numbers = {text: f"{number}…" for number, text in enumerate(dict.fromkeys(whole), 1)}
    return [f"{numbers[text]}{text[-max(width - len(numbers[text]), 1) :]}"[:width] for text in whole]


def _common_start(texts: Sequence[str]) -> int:
    """Length of the whole words, or folders, that all of several texts begin with."""
    if len(texts) < 2:
        return 0
    same = (len(set(letters)) == 1 for letters in zip(*texts))
    words = re.match(r".*[-_. /]|", texts[0][: sum(itertools.takewhile(bool, same))])
    length = words.end() if words else 0
    return length - 1 if length and texts[0][length - 1] == "/" else length


def _cut_middle(text: str, width: int, tail: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
