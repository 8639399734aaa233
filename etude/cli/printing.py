"""The one way to a terminal: results to stdout, progress and errors to stderr, no control character."""

import codecs
import contextlib
import errno
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from etude.text import clean, printable

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST, _WIDEST = 60, 100
_SPELLINGS = {
    "→": "->", "–": "-", "…": "...", "±": "+-", "★": "*", "◆": "*", "●": "o", "▲": "^", "│": "|", "├": "+",
    "└": "+", "─": "-", **{level: str(number) for number, level in enumerate("▁▂▃▄▅▆▇█", 1)},
}  # fmt: skip
_NARROW = 20  # columns, in fewer of which nothing is wrapped


def ready_streams() -> None:
    """Let stdout and stderr spell what their encoding lacks, and stdin read any bytes."""
    codecs.register_error(_spell.__name__, _spell)
    for name in ("COLUMNS", "LINES"):  # a size that no terminal has fills memory, or is a traceback
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "1")):
            del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper | Output):
            stream.reconfigure(errors=_spell.__name__)
    with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # it was read from before, or is none
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Our own signs in ASCII, so that tables and curves can be read, and all else as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    texts = [_spelled(sign) for sign in error.object[error.start : error.end]]
    return "".join(texts), error.end


def _spelled(sign: str) -> str:
    if "\u2800" <= sign <= "\u28ff":  # Braille, of which curves are drawn
        return " " if sign == "\u2800" else "."
    return _SPELLINGS.get(sign) or sign.encode("ascii", "backslashreplace").decode()


def print_text(text: object = "", *, end: str = "\n") -> None:
    """Print text as a result."""
    print(clean(str(text)), end=end, flush=not end)


def say(text: object) -> None:
    """Print a line of progress, not of results."""
    print(clean(str(text)), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value as strict JSON: NaN and infinities as "nan" and "inf", odd characters escaped."""
    print(_json_text(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line, at once, for a reader that waits for it."""
    print(_json_text(value), flush=True)


def print_rows(rows: list[tuple[str, str]], data: Any = None, as_json: bool = False) -> None:
    """Print named values below each other, or data as JSON."""
    if as_json:
        print_json(data)
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print_wrapped(f"{name:<{width}}  ", value, indent=width + 2)


def print_wrapped(lead: str, text: str, *, indent: int = 2, style: str = "", stderr: bool = False) -> None:
    """Print a line behind its lead; on a terminal it is wrapped, and goes on below, indented.

    Lead and style are seen on a terminal only, and where FORCE_COLOR asks for it.
    """
    stream, lead, text = sys.stderr if stderr else sys.stdout, printable(lead), printable(text)
    is_terminal = stream.isatty()
    if not is_terminal and not os.environ.get("FORCE_COLOR"):
        print(lead + text, file=stream, flush=stderr)
        return
    from rich.text import Text

    console, styled = open_console(stderr=stderr), Text(text, style=style)
    room = console.width - indent
    lines = styled.wrap(console, room) if is_terminal and room >= _NARROW else [styled]
    for number, line in enumerate(lines):
        line.rstrip()
        front = " " * indent if number else lead
        console.print(Text.assemble((front, "dim"), line), soft_wrap=True)


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


def page_width() -> int:
    """Columns for tables and sentences: those of the terminal, from 60 to 100; 100 without one."""
    return min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)


def open_console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> "Console":
    """A console of rich; its user cleans the text of others first, since colours are escapes too."""
    from rich.console import Console

    file: Any = sys.stderr.uncleaned() if stderr and isinstance(sys.stderr, Output) else None
    return Console(
        file=file, stderr=stderr, width=width, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False
    )


class Output:
    """A stream that never fails: what cannot be written, since reader, terminal or room is gone, is dropped.

    is_cleaned  whether no control character passes, whoever writes it: warnings and log lines of libraries
                quote what a stranger's file says
    error       why the first line was dropped, or None
    is_used     whether anything was written to it
    """

    def __init__(self, stream: Any, *, is_cleaned: bool = False) -> None:
        self._stream, self._is_cleaned = stream, is_cleaned
        self.error: OSError | None = None
        self.is_used = False

    def write(self, text: str) -> int:
        self.is_used = True
        written = clean(text) if self._is_cleaned else text
        self._attempt(lambda: self._stream.write(written))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def uncleaned(self) -> "Output":
        """The same stream, for what has cleaned the text of others and draws."""
        return Output(self._stream)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.error = self.error or error
            # From here on also for what libraries write, and for what still waits in the buffer.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextlib.contextmanager
def lasting_output() -> Iterator[Output]:
    """While entered, neither stdout nor stderr can fail, and stderr is cleaned; yields stdout."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened, such as a journal, would take its place
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)  # a question finds an end, not no stream
    before = sys.stdout, sys.stderr
    # Python leaves a stream out that was closed before it started.
    streams = [stream or os.fdopen(number, "w", closefd=False) for number, stream in zip((1, 2), before)]
    out, err = Output(streams[0]), Output(streams[1], is_cleaned=True)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = streams


def is_reader_gone(error: OSError) -> bool:
    """True if a stream failed because its reader has gone, as behind `| head`."""
    return error.errno in (errno.EPIPE, errno.EIO)


def _json_text(value: Any, indent: int | None = None) -> str:
    from etude.records.events import plain

    is_wide = (sys.stdout.encoding or "ascii").lower().startswith("utf")
    text = json.dumps(plain(value), indent=indent, ensure_ascii=not is_wide, allow_nan=False, default=str)
    return re.sub(r"[^ -~\n]", lambda found: _json_escape(found[0]), text)


def _json_escape(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")
