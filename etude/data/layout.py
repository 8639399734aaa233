"""The layout of a source: what each of its files is, by its content, and the format of the rows."""

import itertools
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from etude import durable
from etude.data.formats import Format, find_format, is_readable
from etude.data.listing import list_files, list_own_folders, root_of
from etude.data.rows import HEAD_BYTES, LINES, TABLES, Kind, Row, find_kind, name_container, read_rows
from etude.data.unpack import Allowance, content_name, read_chunks, read_head
from etude.errors import InputError
from etude.recipe.data import Source
from etude.text import plural

_FIRST_ROWS = 20
_MAY_HOLD_ROWS = (*LINES, *TABLES, ".json")
# Files that lie beside data as well as beside code, by the beginning of their names.
_ABOUT = ("readme", "licen", "copying", "notice", "citation", "changelog", "contributing")
_NAMES: dict[Kind, str] = {"lines": "JSONL", "array": "a JSON array", "table": "CSV"}


@dataclass(frozen=True)
class File:
    """A file of a source; its rows are documents, or it is a document itself.

    An unreadable one is in another encoding, or a container that is not read; it is refused, or left out.
    """

    path: Path
    kind: Kind
    has_rows: bool
    is_unreadable: bool = False

    @property
    def is_read_by_rows(self) -> bool:
        return self.has_rows and not self.is_unreadable

    def rows(
        self, most_bytes: int, allowance: Allowance | None = None, *, undecodable: bool = False
    ) -> Iterator[tuple[int, Row | None]]:
        """Read the rows with their numbers. Raises: as `read_rows` and `read_chunks`."""
        chunks = read_chunks(self.path, allowance)
        return read_rows(chunks, self.kind, str(self.path), most_bytes=most_bytes, undecodable=undecodable)


@dataclass(frozen=True)
class Layout:
    """The files of a source, and the format of its rows; mixed: some files hold no rows by their names."""

    source: Source
    files: list[File]
    form: Format
    is_mixed: bool

    @property
    def rows_as_texts(self) -> list[Path]:
        """The files of rows that are read as texts, as their rows hold none."""
        return [file.path for file in self.files if file.kind in _NAMES and not file.has_rows]

    def describe(self, documents: int) -> str:
        """Describe the source for a person: `4,535 rows of JSONL, field text`."""
        source = self.source
        if source.source == "python-stdlib":
            python = f"Python {platform.python_version()}"
            return f"{plural(documents, 'module')} of the standard library of {python}"
        held = [file for file in self.files if file.has_rows]
        kinds = [_NAMES[kind] for kind in _NAMES if any(file.kind == kind for file in held)]
        of = f"of {' and '.join(kinds)}, {self.form}"
        rows = f"{plural(documents, 'row')} {of}"
        if not root_of(source).is_dir():
            return rows if held else "one text"
        where = f"from {plural(len(self.files), 'file')} ({source.glob or '**/*'})"
        if own := list_own_folders(source):
            where += f", without {len(own):,} of runs or of the cache of etude ({own[0].name[:60]})"
        if len(held) == len(self.files):
            return f"{rows}, {where}"
        among = f"; of {len(held):,} of them rows {of}" if held else ""
        return f"{plural(documents, 'document')}, {where}{among}"

    def advise(self, row: Row, file: File) -> str:
        """Advice about a row without the format of the source; empty if it has it, and so another fault."""
        form, source = self.form, self.source
        if form.has_fields(row) and (form.kind == "text" or not is_readable(row, source.field, None)):
            return ""
        if self.is_mixed and not _settings_of_rows(source):
            whole = ', or set format = "text" to read this one whole'
            return f"; choose other files with glob{'' if _has_format(file, source, 'text') else whole}"
        if form.kind == "text":
            return ""
        return f"; all rows of a source have one format, here {form}: mend this row, or set format"


def look_through(source: Source) -> Layout:
    """Look into the files of a source, and find the format of the rows.

    Where all files may hold rows by their names, and for a single file, rows are documents whatever they
    hold. Beside other files, and with format "text", JSON and CSV are rows only if a format fits, else texts
    as code is. Beside other files, with format "text" or where these are more than those of rows, JSON Lines
    are, too, and the format is the field that holds the text.

    Raises: InputError if rows are needed and there are none.
    """
    paths, settings = list_files(source), _settings_of_rows(source)
    is_single = source.path is not None and len(paths) == 1 and paths[0] == root_of(source)
    files = [look_at(path, by_name=not is_single) for path in paths]
    others = [] if is_single else [path for path in paths if not content_name(path).endswith(_MAY_HOLD_ROWS)]
    if source.format == "text" or others:
        code = [path for path in others if not path.name.lower().startswith(_ABOUT)]
        is_code = len(code) > sum(file.has_rows for file in files)
        wanted = "text" if is_code and not settings else source.format
        always = () if others and wanted == "text" else LINES
        for at, file in enumerate(files):
            if file.has_rows and not content_name(file.path).endswith(always):
                files[at] = replace(file, has_rows=_has_format(file, source, wanted))
    elif odd := next((file for file in files if file.kind == "object" and not file.is_unreadable), None):
        raise InputError(
            f"{odd.path} holds {why_no_rows(odd)}, and no rows; write a JSON array or JSON Lines, choose "
            'other files with glob, or set format = "text" if the whole file is one text'
        )
    without = next((file.path for file in files if not file.has_rows), None)
    if settings and without is not None:
        name, value = next(iter(settings.items()))
        advice = "give JSON Lines, a JSON array or CSV, choose such files with glob, or leave it out"
        raise InputError(f"{without} has no rows, which {name} = {value!r} needs; {advice}")
    if source.label is not None or source.target is not None:
        form = Format("text", (source.field,))
    else:
        rows = (row for file in files if file.is_read_by_rows for row in _first_rows(file, source))
        form = find_format(list(itertools.islice(rows, _FIRST_ROWS)), source.field, source.format)
    return Layout(source, files, form, is_mixed=bool(others))


def look_at(path: Path, *, by_name: bool = False) -> File:
    """Look into a file; by_name: only if it may hold rows by its name."""
    name = content_name(path)
    if by_name and not name.endswith((*_MAY_HOLD_ROWS, ".txt")):
        return File(path, "text", has_rows=False)
    head, is_whole = read_head(path, HEAD_BYTES)
    if durable.name_encoding(head) or name_container(head):
        return File(path, "object", has_rows=name.endswith(_MAY_HOLD_ROWS), is_unreadable=True)
    kind = find_kind(name, head, is_whole=is_whole)
    return File(path, kind, has_rows=kind in _NAMES)


def why_no_rows(file: File) -> str:
    """Name the content of a file that holds no rows."""
    head, _ = read_head(file.path, HEAD_BYTES)
    if file.is_unreadable:
        return name_container(head) or durable.name_encoding(head)
    if not head.strip():
        return "nothing"
    if not head.lstrip().startswith(b"{"):
        return "one text"
    try:
        names = list(json.loads(head))
    except (ValueError, RecursionError):
        return "a JSON object"
    return f"one JSON object with the fields {', '.join(repr(name[:30]) for name in names[:4])}"


def _first_rows(file: File, source: Source) -> Iterator[Row]:
    return (row for _, row in file.rows(source.max_row_bytes, undecodable=True) if row is not None)


def _has_format(file: File, source: Source, wanted: str | None) -> bool:
    """True if one of the first rows of a file, before any that is broken, holds what a format reads."""
    try:
        rows = itertools.islice(_first_rows(file, source), _FIRST_ROWS)
        return any(is_readable(row, source.field, wanted) for row in rows)
    except InputError:
        return False


def _settings_of_rows(source: Source) -> dict[str, str]:
    """The settings of a source that only rows can have, by name."""
    settings = {
        "label": source.label, "target": source.target, "pair": source.pair, "group_by": source.group_by,
        "format": None if source.format == "text" else source.format,
    }  # fmt: skip
    return {name: value for name, value in settings.items() if value is not None}
