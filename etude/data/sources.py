"""Documents from files, folders and the standard library, one after another, as they are: no byte is changed.

A row of JSON Lines, of a JSON array or of CSV is a document or a conversation; any other file is one UTF-8
document. Files are unpacked on the way.
"""

import itertools
import json
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.data.formats import Format, find_format, has_answer, is_readable
from etude.data.labels import read_label
from etude.data.listing import list_files, list_own_folders, root_of
from etude.data.rows import (
    HEAD_BYTES,
    LINES,
    NO_VALUES,
    TABLES,
    Kind,
    Row,
    find_kind,
    name_container,
    place_of,
    read_rows,
)
from etude.data.turns import Message, count_unlearnt, is_answer
from etude.data.unpack import Allowance, content_name, read_chunks, read_head
from etude.errors import InputError
from etude.recipe.schema import Source
from etude.text import plural

_MAX_DOCUMENT_BYTES = 256 << 20
_FIRST_ROWS = 20
_MAY_HOLD_ROWS = (*LINES, *TABLES, ".json")
# Files that lie beside data as well as beside code, by the beginning of their names.
_ABOUT = ("readme", "licen", "copying", "notice", "citation", "changelog", "contributing")


@dataclass(frozen=True)
class Document:
    """A text, where it came from, and the group that must stay in one split (None: it stands alone).

    Of a conversation there are `messages`, and `text` is their content; `capability` is what scores are told
    apart by. A labelled text has a `label`, as `read_label` returns it, and may have a second text, its
    `pair`; a text to be turned into another has that. `line` is where a row stands in its file, as for
    `place_of`; 0 for a file that is one document. `unread` are the columns of a row, and fields of its
    messages, that nothing reads; `no_values` the columns that are read of a table whose cell looks as other
    tools write an empty one. Undecodable ones have no text.
    """

    text: str
    group: str | None
    path: str
    line: int = 0
    messages: list[Message] | None = None
    capability: str | None = None
    is_undecodable: bool = False
    pair: str | None = None
    label: Any = None
    unread: tuple[str, ...] = ()
    no_values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return place_of(self.path, self.line)

    @property
    def content(self) -> str:
        """All text of a document."""
        return self.text if self.pair is None else f"{self.text}\n{self.pair}"

    @property
    def prompt(self) -> str:
        """What is asked: the source of a pair, or what comes before the last answer; all text where nothing
        is.
        """
        if self.messages is None:
            return self.text if self.label is None else self.content
        last = max((at for at, message in enumerate(self.messages) if is_answer(message)), default=0)
        before = self.messages[:last]
        is_asked = any(message["role"] != "system" for message in before)
        return "\n\n".join(message["content"] for message in before) if is_asked else self.text

    @property
    def blank(self) -> bool:
        """Whether there is nothing to learn."""
        if self.messages is not None:
            return not has_answer(self.messages)
        return not self.text or self.text.isspace()


def read_documents(source: Source, *, undecodable: bool = False) -> Iterator[Document]:
    """Every document of a source in a fixed order, blank ones included, read as they are asked for.

    undecodable: files that are binary or not UTF-8, and such lines of JSONL, are documents without text,
    instead of refused.

    Raises: InputError naming the file, and the row, that cannot be used; or if no document has any text.
    """
    found, unlearnt, undecoded, layout = False, 0, 0, _look_through(source)
    folders = [file.path.parent for file in layout.files if not file.is_read_by_rows]
    common = Path(os.path.commonpath(folders)) if folders else Path()
    allowance = Allowance(source.max_bytes)
    for file in layout.files:
        for document in (
            _read_file(file, source, layout, allowance, undecodable)
            if file.is_read_by_rows
            else [_read_text(file.path, common, allowance, undecodable)]
        ):
            found = found or not document.blank
            undecoded += document.is_undecodable
            unlearnt += 0 if found else count_unlearnt(document.messages or ())
            yield document
    if not found and undecoded:
        raise InputError(
            f"{_name(source)} has no text: {undecoded:,} of its files or lines are binary or not UTF-8, and "
            "others hold none; convert them"
        )
    if not found and unlearnt and layout.form.kind in ("messages", "sharegpt"):
        raise InputError(
            f"{_name(source)} has no answer to learn: every one ({unlearnt:,}) is marked as not to be learnt "
            "(weight 0, train false ...); take the marks out of those that are"
        )
    if not found and layout.form.kind != "text":
        raise InputError(
            f"{_name(source)} has no row with an answer; it was read as {layout.form}: set format if that is "
            "not"
        )
    if not found:
        raise InputError(f"{_name(source)} is empty: no document has any text; give a source with text")


def read_all_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with its name. Raises: InputError if it holds none."""
    file, limits = _look_at(path), Source(path=str(path))
    if not file.is_read_by_rows:
        raise InputError(f"{path} holds no rows ({_why_no_rows(file)}); give JSON Lines, a JSON array or CSV")
    chunks = read_chunks(path, Allowance(limits.max_bytes))
    for number, row in read_rows(chunks, file.kind, str(path), most_bytes=limits.max_row_bytes):
        if row is not None:
            yield place_of(str(path), number), row


def source_format(source: Source) -> Format:
    """What the rows of a source hold, found out from the first of them; text if there are none.

    Raises: InputError.
    """
    return _look_through(source).form


def source_key(source: Source) -> list[Any]:
    """What tells whether a source is still the same: settings, and size, time and content of its files.

    Raises: InputError if a file cannot be read, or there is more than the source may have; that is not read
    first.
    """
    paths = list_files(source)
    try:
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}; check its owner, mode and disk"
        ) from None
    if size > source.max_bytes:
        raise InputError(
            f"{_name(source)} has {size:,} bytes, over the {source.max_bytes:,} that a source may have; "
            "raise its max_bytes if so much is meant"
        )
    return [source.model_dump(), [[str(path), *durable.content_key(path)] for path in paths]]


def large_files(sources: Iterable[Source]) -> Iterator[Path]:
    """The files of which `source_key` reads samples only."""
    for path in itertools.chain.from_iterable(map(list_files, sources)):
        if durable.is_sampled(path.stat().st_size):
            yield path


def describe(source: Source, documents: int) -> str:
    """What was found, for a person: `4,535 rows of JSONL, field text`."""
    if source.source == "python-stdlib":
        return f"{plural(documents, 'module')} of the standard library of Python {platform.python_version()}"
    layout = _look_through(source)
    held = [file for file in layout.files if file.has_rows]
    kinds = [_NAMES[kind] for kind in _NAMES if any(file.kind == kind for file in held)]
    of = f"of {' and '.join(kinds)}, {layout.form}"
    rows = f"{plural(documents, 'row')} {of}"
    if not root_of(source).is_dir():
        return rows if held else "one text"
    where = f"from {plural(len(layout.files), 'file')} ({source.glob or '**/*'})"
    if own := list_own_folders(source):
        where += f", without {len(own):,} of runs or of the cache of etude ({own[0].name[:60]})"
    if len(held) == len(layout.files):
        return f"{rows}, {where}"
    return f"{plural(documents, 'document')}, {where}" + (
        f"; of {len(held):,} of them rows {of}" if held else ""
    )


def list_rows_as_texts(source: Source) -> list[Path]:
    """The files of rows that are read as texts, as their rows hold none. Raises: InputError."""
    return [file.path for file in _look_through(source).files if file.kind in _NAMES and not file.has_rows]


_NAMES: dict[Kind, str] = {"lines": "JSONL", "array": "a JSON array", "table": "CSV"}


@dataclass(frozen=True)
class _File:
    """A file of a source, what it holds, and whether its rows are documents, or it is a document itself.

    An unreadable one is in another encoding, or a container that is not read; it is refused, or left out.
    """

    path: Path
    kind: Kind
    has_rows: bool
    is_unreadable: bool = False

    @property
    def is_read_by_rows(self) -> bool:
        return self.has_rows and not self.is_unreadable


@dataclass(frozen=True)
class _Layout:
    """The files of a source, and the format of its rows; `is_mixed`: some files hold no rows by
    their names."""

    files: list[_File]
    form: Format
    is_mixed: bool


def _name(source: Source) -> str:
    return source.source or str(source.path)


def _look_through(source: Source) -> _Layout:
    """What the files of a source are, by their content, and what their rows hold.

    Where all files may hold rows by their names, and for a single file, rows are documents whatever they
    hold. Beside other files, and with format "text", JSON and CSV are rows only if a format fits, else texts
    as code is. Beside other files, with format "text" or where these are more than those of rows, JSON Lines
    are, too, and the format is the field that holds the text.

    Raises: InputError if rows are needed and there are none.
    """
    paths = list_files(source)
    is_single = source.path is not None and len(paths) == 1 and paths[0] == root_of(source)
    files = [_look_at(path, by_name=not is_single) for path in paths]
    others = [] if is_single else [path for path in paths if not content_name(path).endswith(_MAY_HOLD_ROWS)]
    if source.format == "text" or others:
        is_code = sum(not path.name.lower().startswith(_ABOUT) for path in others) > sum(
            f.has_rows for f in files
        )
        wanted = "text" if is_code and not _settings_of_rows(source) else source.format
        always = () if others and wanted == "text" else LINES
        files = [
            file
            if not file.has_rows or content_name(file.path).endswith(always) or _fits(file, source, wanted)
            else _File(file.path, file.kind, has_rows=False)
            for file in files
        ]  # fmt: skip
    elif odd := next((file for file in files if file.kind == "object" and not file.is_unreadable), None):
        raise InputError(
            f"{odd.path} holds {_why_no_rows(odd)}, and no rows; write a JSON array or JSON Lines, choose "
            'other files with glob, or set format = "text" if the whole file is one text'
        )
    _require_rows(source, files)
    if source.label is not None or source.target is not None:
        return _Layout(files, Format("text", (source.field,)), is_mixed=bool(others))
    rows = (row for file in files if file.is_read_by_rows for row in _first_rows(file, source))
    form = find_format(list(itertools.islice(rows, _FIRST_ROWS)), source.field, source.format)
    return _Layout(files, form, is_mixed=bool(others))


def _look_at(path: Path, *, by_name: bool = False) -> _File:
    """What a file is; by_name: only look into those that may hold rows by their names."""
    name = content_name(path)
    if by_name and not name.endswith((*_MAY_HOLD_ROWS, ".txt")):
        return _File(path, "text", has_rows=False)
    head, is_whole = read_head(path, HEAD_BYTES)
    if durable.name_encoding(head) or name_container(head):
        return _File(path, "object", has_rows=name.endswith(_MAY_HOLD_ROWS), is_unreadable=True)
    kind = find_kind(name, head, is_whole=is_whole)
    return _File(path, kind, has_rows=kind in _NAMES)


def _why_no_rows(file: _File) -> str:
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


def _first_rows(file: _File, source: Source) -> Iterator[Row]:
    rows = read_rows(
        read_chunks(file.path), file.kind, str(file.path), most_bytes=source.max_row_bytes, undecodable=True
    )
    return (row for _, row in rows if row is not None)


def _fits(file: _File, source: Source, wanted: str | None) -> bool:
    """Whether one of the first rows of a file, before any that is broken, holds what a format reads."""
    try:
        rows = itertools.islice(_first_rows(file, source), _FIRST_ROWS)
        return any(is_readable(row, source.field, wanted) for row in rows)
    except InputError:
        return False


def _require_rows(source: Source, files: list[_File]) -> None:
    """Raises: InputError if a setting of the source is about rows and a file has none."""
    settings = _settings_of_rows(source)
    setting = next(iter(settings), None)
    other = next((file.path for file in files if not file.has_rows), None)
    if setting is not None and other is not None:
        advice = "give JSON Lines, a JSON array or CSV, choose such files with glob, or leave it out"
        raise InputError(f"{other} has no rows, which {setting} = {settings[setting]!r} needs; {advice}")


def _settings_of_rows(source: Source) -> dict[str, str]:
    settings = {
        "label": source.label, "target": source.target, "pair": source.pair, "group_by": source.group_by,
        "format": None if source.format == "text" else source.format,
    }  # fmt: skip
    return {name: value for name, value in settings.items() if value is not None}


def _read_text(path: Path, common: Path, allowance: Allowance, undecodable: bool) -> Document:
    """A file as a document; its group is the folder, or itself, by which it differs first within `common`."""
    pieces: list[bytes] = []
    size = 0
    for chunk in read_chunks(path, allowance):
        pieces.append(chunk)
        size += len(chunk)
        if size > _MAX_DOCUMENT_BYTES or b"\0" in chunk:
            break
    data = b"".join(pieces)
    text, wrong = "", ""
    if container := name_container(data[:HEAD_BYTES]):
        wrong = f"is {container}"
    elif b"\0" in data and not durable.name_encoding(data):
        wrong = f"is binary: byte {data.index(0)} is NUL; convert it to UTF-8"
    elif size > _MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{path} is longer than {_MAX_DOCUMENT_BYTES >> 20} MiB, and would be one document; split it "
            "into files, or into rows of JSONL"
        )
    elif why := durable.why_not_utf8(data):
        wrong = f"is not UTF-8 text: {why}; convert it to UTF-8"
    else:
        text = data.decode("utf-8")
    if wrong and not undecodable:
        raise InputError(
            f"{path} {wrong}, choose other files with glob, or leave such files out with "
            'data.clean.undecodable = "drop"'
        )
    group = str(common / path.relative_to(common).parts[0])
    return Document(text, group, str(path), is_undecodable=bool(wrong))


def _read_file(
    file: _File, source: Source, layout: _Layout, allowance: Allowance, undecodable: bool
) -> Iterator[Document]:
    path, form = str(file.path), layout.form
    named = {source.label, source.target, source.pair, source.group_by, source.capability}
    used = named | form.columns | ({source.field} if source.label or source.target else set())
    cells = used - {source.label} if file.kind == "table" else set()
    chunks = read_chunks(file.path, allowance)
    rows = read_rows(chunks, file.kind, path, most_bytes=source.max_row_bytes, undecodable=undecodable)
    for number, row in rows:
        name = place_of(path, number)
        if row is None:
            yield Document("", None, path, number, is_undecodable=True)
            continue
        try:
            text, messages = form.read(row)
        except InputError as error:
            raise InputError(f"{name} {error}{_advise_format(row, file, source, layout)}") from None
        group = None if source.group_by is None else _row_group(row, source.group_by, name)
        label = None if source.label is None else read_label(row, source.label, name)
        yield Document(
            text, group, path, number, messages, _row_capability(row, source.capability, name),
            pair=_row_pair(row, source, name), label=label,
            unread=(*(column for column in row if column not in used), *form.list_unread(row)),
            no_values=tuple(column for column in cells if column in row and row[column].strip() in NO_VALUES),
        )  # fmt: skip


def _advise_format(row: Row, file: _File, source: Source, layout: _Layout) -> str:
    """What to do about a row that has not the format of its source; empty if the row has it, so another
    fault.
    """
    form = layout.form
    if form.has_fields(row) and (form.kind == "text" or not is_readable(row, source.field, None)):
        return ""
    if layout.is_mixed and not _settings_of_rows(source):
        is_text = not _fits(file, source, "text")
        return "; choose other files with glob" + (
            ', or set format = "text" to read this one whole' * is_text
        )
    if form.kind == "text":
        return ""
    return f"; all rows of a source have one format, here {form}: mend this row, or set format"


def _row_pair(row: Row, source: Source, name: str) -> str | None:
    second = source.target or source.pair
    if second is None:
        return None
    for field in (source.field, second):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise InputError(
                f"{name}: {field!r}, a side of the pair, is missing or empty; fill it, or remove the row"
            )
    return str(row[second])


def _row_group(row: Row, group_by: str, name: str) -> str | None:
    if group_by not in row:
        raise InputError(
            f"{name} has no field {group_by!r} to group by; its fields are: {str(list(row)[:20])[1:-1]}"
        )
    value = row[group_by]
    return None if value is None else f"{group_by}={_to_json(value, group_by, name)}"


def _row_capability(row: Row, field: str, name: str) -> str | None:
    value = row.get(field)
    return value if isinstance(value, str | None) else _to_json(value, field, name)


def _to_json(value: Any, field: str, name: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (ValueError, RecursionError):
        raise InputError(
            f"{name}: field {field!r} holds NaN, Infinity or too deep a value; repair the row"
        ) from None
