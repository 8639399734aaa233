"""The rows of a data file, one after another and numbered: JSON Lines, a JSON array, CSV or TSV.

The content of a file says what it holds; its name decides only where that leaves a choice.
"""

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from etude.data.unpack import content_name
from etude.errors import InputError
from etude.text import kind_of

Row = dict[str, Any]
# lines: JSON Lines. array: one JSON array of objects. table: CSV or TSV. object: some other JSON.
Kind = Literal["lines", "array", "table", "object", "text"]
LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".tab")
HEAD_BYTES = 1 << 20  # of a file whose content is looked at
# Cells of a table that pandas reads as empty ones; it and Python write some of them where a value is missing.
NO_VALUES = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null",
})  # fmt: skip

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_ARRAY = re.compile(rb"\[\s*(?:[{\]]|\Z)")
_SPACE = re.compile(r"[ \t\r\n]*")
_JSON_CHARACTERS = 16  # of a piece of JSON that may be incomplete: the longest is an escape or a word
# Files that hold rows or texts within something that is not read here, by their first bytes.
_CONTAINERS = {
    b"PAR1": "a Parquet file; save its rows as JSON Lines, as datasets' to_json does",
    b"ARROW1": "an Arrow file; save its rows as JSON Lines, as datasets' to_json does",
    b"FEA1": "a Feather file; save its rows as JSON Lines",
    b"SQLite format 3": "an SQLite database; save its rows as JSON Lines or CSV",
    b"\xd0\xcf\x11\xe0": "an old Office file; save it as CSV in UTF-8",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"%PDF": "a PDF file; save its text as UTF-8",
    b"\x89HDF": "an HDF5 file; save its rows as JSON Lines",
    b"\x93NUMPY": "a NumPy file; save its rows as JSON Lines",
    b"version https://git-lfs": "a pointer of Git LFS, not the data; fetch it with git lfs pull",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle, which is never read; save its rows as JSON Lines",
    ),
}


def place_of(path: str, number: int) -> str:
    """Name a row: `rows.jsonl:12` for line 12, `rows.json row 12` for row -12 of an array; 0 is the file."""
    return f"{path}:{number}" if number > 0 else f"{path} row {-number}" if number else path


def name_container(head: bytes) -> str | None:
    """Name a file that holds data in a way that is not read, by its first bytes; and say what to do."""
    if head.startswith(b"PK\x03\x04"):
        if b"[Content_Types].xml" in head[:4096] or b"xl/" in head[:4096]:
            return "an Excel or Office file; save the sheet as CSV in UTF-8"
        return "a ZIP archive; unpack it and give the file or folder"
    if head[257:262] == b"ustar":
        return "a TAR archive; unpack it and give the folder"
    return next((what for magic, what in _CONTAINERS.items() if head.startswith(magic)), None)


def find_kind(name: str, head: bytes, *, is_whole: bool) -> Kind:
    """Find the kind of a file by its first bytes and its name, that of the content if it is packed.

    JSON Lines under another name are known by two lines that are objects; one object alone may be anything.
    """
    text = head.removeprefix(_BOM).lstrip()
    is_array = _ARRAY.match(text) is not None
    if name.endswith(LINES):
        return "array" if is_array else "lines"
    if is_array and (text[:2] != b"[]" or name.endswith(".json")):
        return "array"
    lines = [line for line in text.split(b"\n", 64)[: 64 if is_whole else -1] if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines[:2]) and _is_object(lines[0]):
        return "lines"
    if name.endswith(TABLES) and text[:1] != b"{":
        return "table"
    return "object" if name.endswith(".json") or name.endswith(TABLES) else "text"


def read_rows(
    chunks: Iterable[bytes], kind: Kind, path: str, *, most_bytes: int, undecodable: bool = False
) -> Iterator[tuple[int, Row | None]]:
    """Read the rows of a file, numbered as for `place_of`. Raises: InputError naming the line or row.

    most_bytes: of a row. undecodable: lines of JSONL that are not UTF-8 are None instead of refused.
    """
    match kind:
        case "array":
            yield from _Array(chunks, path, most_bytes).rows()
        case "table":
            yield from _read_table(chunks, path, most_bytes)
        case _:
            yield from _read_lines(chunks, path, most_bytes, undecodable)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(
    chunks: Iterable[bytes], path: str, most_bytes: int, undecodable: bool
) -> Iterator[tuple[int, Row | None]]:
    for number, line in enumerate(_split_lines(chunks, path, most_bytes), 1):
        line = line.removeprefix(_BOM)  # also where files were put together
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            text = _decode(line, place, ', or leave such lines out with data.clean.undecodable = "drop"')
        except InputError:
            if not undecodable:
                raise
            yield number, None
        else:
            yield number, _parse(text, place)


def _decode(line: bytes, place: str, advice: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 text: byte {error.start} of the line is {line[error.start]:02X}; "
            f"save the file as UTF-8{advice}"
        ) from None


def _split_lines(chunks: Iterable[bytes], path: str, most_bytes: int) -> Iterator[bytes]:
    pieces: list[bytes] = []
    number, size = 1, 0
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        for line in others:
            if size > most_bytes:
                break
            yield b"".join(pieces)
            pieces, size, number = [line], len(line), number + 1
        if size > most_bytes:
            raise _too_long(f"{path}:{number}", most_bytes)
    yield b"".join(pieces)


def _too_long(place: str, most_bytes: int) -> InputError:
    return InputError(
        f"{place} is a row of over {most_bytes:,} bytes; split it, or raise max_row_bytes of the source "
        "(a row takes up to 300 times its size in memory)"
    )


def _parse(text: str, place: str) -> Row:
    """Read a line of JSONL. Raises: InputError if it is not one JSON object."""
    try:
        return _check_row(_JSON.decode(text.strip()), place, "\\ud" in text.lower())
    except json.JSONDecodeError as error:
        why = f"{error.msg} at column {error.colno}"
        if "\r" in text.strip():
            why = "its lines end with CR alone; save it with LF"
        raise InputError(f"{place} is not valid JSON: {why}; repair the line") from None
    except (RecursionError, ValueError) as error:
        raise _unusable(place, error) from None


def _unusable(place: str, error: RecursionError | ValueError) -> InputError:
    if isinstance(error, RecursionError):
        return InputError(f"{place} nests values too deeply to be read; flatten it")
    why = str(error) if str(error).startswith("has ") else "holds a whole number of too many digits"
    return InputError(f"{place} {why}; repair it")


def _check_row(value: Any, place: str, has_escapes: bool) -> Row:
    """Raises: InputError if a value is no object, or holds what is no text."""
    if not isinstance(value, dict):
        raise InputError(
            f'{place} is {kind_of(value)}, not an object with fields; write rows like {{"text": "..."}}'
        )
    # UTF-8 has no surrogates, so only an escape can bring one in.
    if has_escapes and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise InputError(
            f"{place} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; repair it"
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the field {twice[:40]!r} twice")
    return row


# Made once: json.loads with an option makes a new one for each line.
_JSON = json.JSONDecoder(object_pairs_hook=_unique)


class _Array:
    """The text of a JSON array that was read and is not used up yet, and the line of any place in it."""

    def __init__(self, chunks: Iterable[bytes], path: str, most_bytes: int) -> None:
        self._chunks, self._path, self._most_bytes = iter(chunks), path, most_bytes
        self._text, self._at, self._row = "", 0, 1
        self._line, self._column = 1, 0  # where the text begins
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_at_end = False

    def rows(self) -> Iterator[tuple[int, Row]]:
        if self._next() == "\ufeff":
            self._at += 1
        if self._next() != "[":
            raise self._wrong("an array begins with [", self._at)
        self._at += 1
        mark = "" if self._next() == "]" else ","
        while mark == ",":
            self._next()
            yield -self._row, self._item()
            if (mark := self._next()) == ",":
                self._at += 1
                self._row += 1
            elif mark != "]":
                raise self._wrong(
                    "a comma or ] should follow" if mark else "it ends within the array", self._at
                )
        self._at += 1
        if self._next():
            raise self._wrong("more follows after the array", self._at)

    def _item(self) -> Row:
        place = place_of(self._path, -self._row)
        while True:
            try:
                value, end = _JSON.raw_decode(self._text, self._at)
                if end - self._at > self._most_bytes:
                    raise _too_long(place, self._most_bytes)
                has_escapes = self._text.find("\\u", self._at, end) >= 0
                self._at = end
                return _check_row(value, place, has_escapes)
            except json.JSONDecodeError as error:
                is_at_end = error.pos > len(self._text) - _JSON_CHARACTERS
                if not ((is_at_end or error.msg.startswith("Unterminated")) and self._read_on()):
                    raise self._wrong(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                raise _unusable(place, error) from None

    def _next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        """Read at least as much again as is there; False at the end of the file."""
        if self._is_at_end:
            return False
        pieces, wanted = [self._text[self._at :]], len(self._text) - self._at
        if wanted > self._most_bytes:
            raise _too_long(place_of(self._path, -self._row), self._most_bytes)
        self._line, self._column = self._position(self._at)
        self._at = 0
        while wanted >= 0 and not self._is_at_end:
            chunk = next(self._chunks, b"")
            self._is_at_end = not chunk
            try:
                pieces.append(self._decoder.decode(chunk, final=not chunk))
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self._path} is not UTF-8 text: the byte {error.object[error.start]:02X} in or after "
                    f"row {self._row} is none of its characters; save it as UTF-8"
                ) from None
            wanted -= len(pieces[-1]) or 1
        self._text = "".join(pieces)
        return True

    def _wrong(self, why: str, at: int) -> InputError:
        line, column = self._position(at)
        where = f"row {self._row}, line {line} column {column + 1}"
        return InputError(f"{self._path} is not valid JSON in {where}: {why}; repair it")

    def _position(self, at: int) -> tuple[int, int]:
        """The line, from 1, and the column, from 0, of a place in the text."""
        lines = self._text.count("\n", 0, at)
        return self._line + lines, at - self._text.rfind("\n", 0, at) - 1 if lines else self._column + at


def _read_table(chunks: Iterable[bytes], path: str, most_bytes: int) -> Iterator[tuple[int, Row]]:
    begin, size = 1, 0

    def lines() -> Iterator[str]:
        nonlocal size
        for number, line in enumerate(_split_lines(chunks, path, most_bytes), 1):
            size += len(line) + 1
            if size > most_bytes:
                raise InputError(
                    f"{path}:{begin} begins a row of over {most_bytes:,} bytes; close its quotes, or raise "
                    "max_row_bytes of the source"
                )
            line = line.removeprefix(_BOM if number == 1 else b"")
            yield _decode(line, f"{path}:{number}", " (in Excel: CSV UTF-8)") + "\n"

    # A setting of the whole process; the limit that holds is that of `lines`.
    csv.field_size_limit(max(csv.field_size_limit(), most_bytes))
    source = lines()
    first = next(source)
    reader = csv.reader(itertools.chain([first], source), delimiter=_find_delimiter(first, path), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None and cells:
                header = _check_header(cells, path)
            elif header is not None and cells:
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}:{begin} has {len(cells)} fields, and the header has {len(header)}; quote "
                        "fields that hold a separator or a line end"
                    )
                yield begin, dict(zip(header, cells))
            begin, size = reader.line_num + 1, 0
    except csv.Error as error:
        raise InputError(f"{path}:{begin} is not valid CSV: {error}; repair the row") from None


def _find_delimiter(header: str, path: str) -> str:
    """The separator that parts the header into most fields, a comma where none does; for TSV a tab."""
    if content_name(Path(path)).endswith((".tsv", ".tab")):
        return "\t"
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(",\t;|", key=lambda mark: (unquoted.count(mark), mark == ","))


def _check_header(cells: list[str], path: str) -> list[str]:
    """The names of the columns; one without a name, as pandas writes for its index, gets its number."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: the header has {twice[:40]!r} twice; give each column a name of its own")
    return names
