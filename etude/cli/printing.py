"""What commands print: results to stdout, progress and errors to stderr."""

import json
import sys
from typing import Any


def print_rows(rows: list[tuple[str, str]], data: Any, as_json: bool) -> None:
    """Print named values below each other, or data as JSON."""
    if as_json:
        print(json.dumps(data, indent=2, default=str))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {printable(value)}")


def print_table(rows: list[list[str]]) -> None:
    """Rows of equal length, the first of them the header."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, pad_edge=False)
    for cell in rows[0]:
        table.add_column(Text(printable(cell)))
    for row in rows[1:]:
        table.add_row(*[Text(printable(cell)) for cell in row])
    console.print(table)


def say(text: str) -> None:
    """A line of progress, not of results."""
    print(text, file=sys.stderr)


def printable(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
