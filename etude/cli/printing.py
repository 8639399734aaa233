"""The one way to a terminal: results to stdout, progress and errors to stderr, and no control character to either."""

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from etude.text import clean, printable

if TYPE_CHECKING:
    from rich.console import Console


def ready_streams() -> None:
    """Let stdout and stderr write whatever their encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_text(text: object = "", *, end: str = "\n") -> None:
    """Print text as a result."""
    print(clean(str(text)), end=end, flush=not end)


def say(text: object) -> None:
    """Print a line of progress, not of results."""
    print(clean(str(text)), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value as JSON that every reader takes: NaN and infinities as "nan" and "inf", odd characters escaped."""
    from etude.records.events import plain

    is_wide = (sys.stdout.encoding or "ascii").lower().startswith("utf")
    text = json.dumps(plain(value), indent=2, ensure_ascii=not is_wide, allow_nan=False, default=str)
    print(re.sub(r"[^ -~\n]", lambda found: _json_escape(found[0]), text))


def print_rows(rows: list[tuple[str, str]], data: Any, as_json: bool) -> None:
    """Print named values below each other, or data as JSON."""
    if as_json:
        print_json(data)
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print_text(printable(f"{name:<{width}}  {value}"))


def print_table(rows: list[list[str]]) -> None:
    """Print rows of equal length, the first of them the header."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for cell in rows[0]:
        table.add_column(Text(printable(cell)))
    for row in rows[1:]:
        table.add_row(*[Text(printable(cell)) for cell in row])
    open_console(width=None if sys.stdout.isatty() else 200).print(table)


def open_console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> "Console":
    """A console of rich; whoever prints on it cleans the text of others first, since colours are escapes too."""
    from rich.console import Console

    return Console(stderr=stderr, width=width, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


def _json_escape(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")
