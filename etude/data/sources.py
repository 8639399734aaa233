"""Documents of a source, one after another, as they are: no byte is changed.

A row of JSON Lines, of a JSON array or of CSV is a document or a conversation; any other file is one UTF-8
document. Files are unpacked on the way.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.data.labels import read_label
from etude.data.layout import File, Layout, look_at, look_through, why_no_rows
from etude.data.listing import list_files
from etude.data.rows import HEAD_BYTES, NO_VALUES, Row, name_container, place_of
from etude.data.turns import Message, count_unlearnt, is_answer
from etude.data.unpack import Allowance, read_chunks, unreadable
from etude.errors import InputError
from etude.recipe.data import Source

_MAX_DOCUMENT_BYTES = 256 << 20


@dataclass(frozen=True)
class Document:
    """A text, its place, and the group that must stay in one split (None: it stands alone).

    line         of a row in its file, as for `place_of`; 0 for a file that is one document
    messages     of a conversation; `text` is their content then
    capability   of the row, which scores are told apart by
    pair         second text of a labelled text, or target of a source
    label        as `read_label` returns it
    unread       columns of the row, and fields of its messages, that nothing reads
    no_values    columns of a table that are read and whose cell looks as other tools write an empty one

    Undecodable documents have no text.
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
        """The source of a pair, or the messages before the last answer; all text where nothing is asked."""
        if self.messages is None:
            return self.text if self.label is None else self.content
        last = max((at for at, message in enumerate(self.messages) if is_answer(message)), default=0)
        before = self.messages[:last]
        is_asked = any(message["role"] != "system" for message in before)
        return "\n\n".join(message["content"] for message in before) if is_asked else self.text

    @property
    def blank(self) -> bool:
        """True if there is nothing to learn."""
        if self.messages is not None:
            return not any(map(is_answer, self.messages))
        return not self.text or self.text.isspace()


def read_documents(source: Source, *, undecodable: bool = False) -> Iterator[Document]:
    """Read every document of a source in a fixed order, blank ones included, as they are asked for.

    undecodable: files that are binary or not UTF-8, and such lines of JSONL, are documents without text,
    instead of refused.

    Raises: InputError naming the file, and the row, that cannot be used; or if no document has any text.
    """
    has_text, unlearnt, undecoded, layout = False, 0, 0, look_through(source)
    folders = [file.path.parent for file in layout.files if not file.is_read_by_rows]
    common = Path(os.path.commonpath(folders)) if folders else Path()
    allowance = Allowance(source.max_bytes)
    for file in layout.files:
        for document in (
            _read_rows(file, layout, allowance, undecodable)
            if file.is_read_by_rows
            else [_read_text(file.path, common, allowance, undecodable)]
        ):
            has_text = has_text or not document.blank
            undecoded += document.is_undecodable
            unlearnt += 0 if has_text else count_unlearnt(document.messages or ())
            yield document
    if not has_text:
        raise InputError(f"{_name(source)} {_why_empty(layout, undecoded, unlearnt)}")


def _why_empty(layout: Layout, undecoded: int, unlearnt: int) -> str:
    if undecoded:
        return (
            f"has no text: {undecoded:,} of its files or lines are binary or not UTF-8, and others hold "
            "none; convert them"
        )
    if unlearnt and layout.form.kind in ("messages", "sharegpt"):
        return (
            f"has no answer to learn: every one ({unlearnt:,}) is marked as not to be learnt (weight 0, "
            "train false ...); take the marks out of those that are"
        )
    if layout.form.kind != "text":
        return f"has no row with an answer; it was read as {layout.form}: set format if that is not"
    return "is empty: no document has any text; give a source with text"


def read_all_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file, each with its name. Raises: InputError if it holds none."""
    file, limits = look_at(path), Source(path=str(path))
    if not file.is_read_by_rows:
        raise InputError(f"{path} holds no rows ({why_no_rows(file)}); give JSON Lines, a JSON array or CSV")
    for number, row in file.rows(limits.max_row_bytes, Allowance(limits.max_bytes)):
        if row is not None:
            yield place_of(str(path), number), row


def source_key(source: Source) -> list[Any]:
    """A key that changes with the settings of a source, and with size, time or content of its files.

    Raises: InputError if a file cannot be read, or, before any is, if there is more than a source may have.
    """
    paths = list_files(source)
    try:
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise unreadable(error.filename, error) from None
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


def _name(source: Source) -> str:
    return source.source or str(source.path)


def _read_text(path: Path, common: Path, allowance: Allowance, undecodable: bool) -> Document:
    """Read a file as a document; its group is the first part of its path within the folder `common`."""
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


def _read_rows(file: File, layout: Layout, allowance: Allowance, undecodable: bool) -> Iterator[Document]:
    path, source, form = str(file.path), layout.source, layout.form
    named = {source.label, source.target, source.pair, source.group_by, source.capability}
    used = named | form.columns | ({source.field} if source.label or source.target else set())
    cells = used - {source.label} if file.kind == "table" else set()
    for number, row in file.rows(source.max_row_bytes, allowance, undecodable=undecodable):
        name = place_of(path, number)
        if row is None:
            yield Document("", None, path, number, is_undecodable=True)
            continue
        try:
            text, messages = form.read(row)
        except InputError as error:
            raise InputError(f"{name} {error}{layout.advise(row, file)}") from None
        group = None if source.group_by is None else _row_group(row, source.group_by, name)
        label = None if source.label is None else read_label(row, source.label, name)
        if not isinstance(capability := row.get(source.capability), str | None):
            capability = _to_json(capability, source.capability, name)
        yield Document(
            text, group, path, number, messages, capability,
            pair=_row_pair(row, source, name), label=label,
            unread=(*(column for column in row if column not in used), *form.list_unread(row)),
            no_values=tuple(column for column in cells if column in row and row[column].strip() in NO_VALUES),
        )  # fmt: skip


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


def _to_json(value: Any, field: str, name: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (ValueError, RecursionError):
        raise InputError(
            f"{name}: field {field!r} holds NaN, Infinity or too deep a value; repair the row"
        ) from None
