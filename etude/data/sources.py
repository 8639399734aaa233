"""Documents from files, folders and the standard library, one after another, as they are: no byte is changed.

.jsonl and .ndjson hold a document or a conversation a line; any other file is one UTF-8 document; .gz and .zst are
unpacked on the way.
"""

import gzip
import itertools
import json
import os
import platform
import re
import stat
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from etude.data.formats import Format, find_format, has_answer
from etude.data.labels import read_label
from etude.data.turns import Message, is_answer
from etude.errors import InputError
from etude.recipe.schema import Source

_CHUNK_BYTES = 1 << 20
_ZSTD_CHUNK_BYTES = 4 << 10  # unpacks to at most 128 MiB
_MAX_DOCUMENT_BYTES = 256 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_ROWS = 20
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 1000
# Not for learning from: packages that happen to be installed, tests, and a hundred copies of one code page module.
_STDLIB_WITHOUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings"}


@dataclass(frozen=True)
class Document:
    """A text, where it came from, and the group that must stay in one split (None: it stands alone).

    Of a conversation there are `messages`, and `text` is their content; `capability` is what scores are told apart by.
    A labelled text has a `label`, as `read_label` returns it, and may have a second text, its `pair`; a text to be
    turned into another has that.
    `line` is where a row stands in its file, from 1; 0 for a file that is one document. Undecodable ones have no text.
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

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path

    @property
    def content(self) -> str:
        """All text of a document."""
        return self.text if self.pair is None else f"{self.text}\n{self.pair}"

    @property
    def prompt(self) -> str:
        """What is asked: the source of a pair, or what comes before the last answer; all text where nothing is."""
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

    undecodable: files that are binary or not UTF-8, and such lines of JSONL, are documents without text, instead of
    refused.

    Raises: InputError naming the file, and the line of JSONL, that cannot be used; or if no document has any text.
    """
    found, form, files = False, source_format(source), list_files(source)
    folders = [path.parent for path in files if not _is_jsonl(path)]
    common = Path(os.path.commonpath(folders)) if folders else Path()
    for path in files:
        is_jsonl = _is_jsonl(path)
        for document in (
            _read_jsonl(path, source, form, undecodable) if is_jsonl else [_read_text(path, common, undecodable)]
        ):
            found = found or not document.blank
            yield document
    if not found and form.kind != "text":
        raise InputError(f"{_name(source)} has no row with an answer; it was read as {form}: set format if that is not")
    if not found:
        raise InputError(f"{_name(source)} is empty: no document has any text; give a source with text")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSONL file, each with the number of its line."""
    for number, line in _numbered_lines(path):
        yield number, _parse(line, f"{path}:{number}")


def source_format(source: Source) -> Format:
    """What the rows of a source hold, found out from the first of them; text if there are none. Raises: InputError."""
    files = [path for path in list_files(source) if _is_jsonl(path)]
    if source.label is not None or source.target is not None:
        if not files:
            raise InputError(f"{_name(source)} has no JSONL, which labels and targets need; give a .jsonl file")
        return Format("text", (source.field,))
    if not files and source.group_by is not None:
        raise InputError(
            f"{_name(source)} has no JSONL, which group_by needs; leave it out: files stay together by their folders"
        )
    if not files and source.format not in (None, "text"):
        raise InputError(
            f"{_name(source)} has no JSONL, which format {source.format!r} needs; give a .jsonl file, or leave it out"
        )
    lines = ((f"{path}:{number}", line) for path in files for number, line in _numbered_lines(path))
    rows = (_parse(line, name) for name, line in lines if _is_text(line))
    return find_format(list(itertools.islice(rows, _FIRST_ROWS)), source.field, source.format)


def list_files(source: Source) -> list[Path]:
    """The files of a source, sorted by relative path. Raises: InputError if there are none, or no plain files."""
    if source.source == "python-stdlib":
        return _list_stdlib()
    root = _root(source)
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{root} does not exist; give the path of a file or folder") from None
    except OSError as error:
        _refuse(root, error)
    if stat.S_ISDIR(mode):
        return _list_folder(root, source.glob or "**/*")
    if not stat.S_ISREG(mode):
        raise InputError(f"{root} is not a plain file but a pipe, socket or device; save its content into a file")
    return [root]


def source_key(source: Source) -> list[Any]:
    """What tells, without reading any text, whether a source is still the same: settings, file sizes and times."""
    files = []
    for path in list_files(source):
        try:
            status = path.stat()
        except OSError as error:
            _refuse(path, error)
        files.append([str(path), status.st_size, status.st_mtime_ns])
    return [source.model_dump(), files]


def describe(source: Source, documents: int) -> str:
    """What was found, for a person: `4,535 rows of JSONL, field text`."""
    if source.source == "python-stdlib":
        return f"{documents:,} modules of the standard library of Python {platform.python_version()}"
    files = list_files(source)
    rows = f"rows of JSONL, {source_format(source)}"
    if _root(source).is_dir():
        kind = rows if all(map(_is_jsonl, files)) else "documents"
        return f"{documents:,} {kind}, from {len(files):,} files ({source.glob or '**/*'})"
    return f"{documents:,} {rows}" if _is_jsonl(files[0]) else "one text"


def _root(source: Source) -> Path:
    assert source.path is not None, "rules.py lets no source through without a path"
    return Path(source.path)


def _name(source: Source) -> str:
    return source.source or str(source.path)


def _is_jsonl(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson"))


def _list_stdlib() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _STDLIB_WITHOUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise InputError(f"python-stdlib has no .py files in {root}; use a Python that was installed with its sources")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _list_folder(root: Path, pattern: str) -> list[Path]:
    inside = root.resolve()
    try:
        matches = [path for path in root.glob(pattern) if path.is_file()]
    except (ValueError, NotImplementedError, IndexError) as error:
        raise InputError(f"glob {pattern!r} is no pattern for files of a folder ({error}); try '**/*.py'") from None
    except OSError as error:
        _refuse(root, error)
    # Hidden files are settings and version control; a link that leads outside would bring in what nobody named.
    visible = [path for path in matches if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    files = [path for path in visible if path.resolve().is_relative_to(inside)]
    if not files:
        raise InputError(f"{root} has no file that matches glob {pattern!r}; give a folder with files, or another glob")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _read_text(path: Path, common: Path, undecodable: bool) -> Document:
    """A file as a document; its group is the folder, or itself, by which it differs first within `common`."""
    pieces: list[bytes] = []
    size = 0
    for chunk in _chunks(path):
        pieces.append(chunk)
        size += len(chunk)
        if size > _MAX_DOCUMENT_BYTES:
            break
    data = b"".join(pieces)
    text, wrong = "", ""
    if b"\0" in data:
        wrong = f"is binary: byte {data.index(0)} is NUL"
    elif size > _MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{path} is longer than {_MAX_DOCUMENT_BYTES >> 20} MiB, and would be one document; split it into files, "
            "or into rows of JSONL"
        )
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            wrong = f"is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
    if wrong and not undecodable:
        raise InputError(
            f'{path} {wrong}; convert it to UTF-8, choose other files with glob = "**/*.py", '
            'or leave such files out with data.clean.undecodable = "drop"'
        )
    group = str(common / path.relative_to(common).parts[0])
    return Document(text, group, str(path), is_undecodable=bool(wrong))


def _read_jsonl(path: Path, source: Source, form: Format, undecodable: bool) -> Iterator[Document]:
    for number, line in _numbered_lines(path):
        name = f"{path}:{number}"
        if undecodable and not _is_text(line):
            yield Document("", None, str(path), number, is_undecodable=True)
            continue
        row = _parse(line, name)
        try:
            text, messages = form.read(row)
        except InputError as error:
            advice = "" if form.kind == "text" else f"; the rows of this source are {form}, so repair it, or set format"
            raise InputError(f"{name} {error}{advice}") from None
        group, capability = _row_group(row, source.group_by, name), row.get(source.capability)
        if not isinstance(capability, str | None):
            capability = json.dumps(capability, sort_keys=True)
        label = None if source.label is None else read_label(row, source.label, name)
        pair = _row_pair(row, source, name)
        yield Document(text, group, str(path), number, messages, capability, pair=pair, label=label)


def _row_pair(row: dict[str, Any], source: Source, name: str) -> str | None:
    second = source.target or source.pair
    if second is None:
        return None
    for field in (source.field, second):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise InputError(f"{name}: {field!r}, a side of the pair, is missing or empty; fill it, or remove the row")
    return str(row[second])


def _row_group(row: dict[str, Any], group_by: str | None, name: str) -> str | None:
    if group_by is None:
        return None
    if group_by not in row:
        raise InputError(f"{name} has no field {group_by!r} to group by; its fields are: {str(list(row)[:20])[1:-1]}")
    value = row[group_by]
    return None if value is None else f"{group_by}={json.dumps(value, sort_keys=True)}"


def _parse(line: bytes, name: str) -> dict[str, Any]:
    try:
        row = _JSON.decode(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8 text: byte {error.start} of the line; convert the file to UTF-8, "
            'or leave such lines out with data.clean.undecodable = "drop"'
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is not valid JSON: {error.msg} at column {error.colno}; repair the line") from None
    except RecursionError:
        raise InputError(f"{name} nests values too deeply to be read; flatten the line") from None
    except ValueError as error:
        raise InputError(f"{name} holds a number that cannot be used ({error}); repair the line") from None
    if not isinstance(row, dict):
        raise InputError(
            f'{name} is a JSON {type(row).__name__}, not an object with fields; write lines like {{"text": "..."}}'
        )
    # UTF-8 has no surrogates, so only an escape can bring one in.
    if b"\\ud" in line.lower() and _SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise InputError(
            f"{name} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; repair the line"
        )
    return row


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Made once: json.loads with an option makes a new one for each line.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _is_text(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number."""
    for number, line in enumerate(_lines(path), 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def _lines(path: Path) -> Iterator[bytes]:
    pieces: list[bytes] = []
    number, size = 1, 0
    for chunk in _chunks(path):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        for line in others:
            yield b"".join(pieces)
            pieces, size, number = [line], len(line), number + 1
        if size > _MAX_DOCUMENT_BYTES:
            raise InputError(
                f"{path}:{number} is longer than {_MAX_DOCUMENT_BYTES >> 20} MiB; JSONL has a document a line, so "
                "split the line"
            )
    yield b"".join(pieces)


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in pieces."""
    size = 0
    try:
        with path.open("rb") as raw:
            for chunk in _unpacked(raw, path):
                size += len(chunk)
                if size > _BOMB_BYTES and size > _BOMB_RATIO * raw.tell():
                    raise InputError(
                        f"{path} unpacks to over {_BOMB_RATIO} times its size; unpack it by hand if you trust it"
                    )
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole {path.suffix} file ({error}); pack or copy it again") from None
    except OSError as error:
        _refuse(path, error)


def _unpacked(raw: IO[bytes], path: Path) -> Iterator[bytes]:
    if path.suffix.lower() == ".zst":
        return _unpacked_zstd(raw)
    file = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
    return iter(lambda: file.read(_CHUNK_BYTES), b"")


def _unpacked_zstd(raw: IO[bytes]) -> Iterator[bytes]:
    # The library's own reader takes a file that was cut off for a whole one; this object knows where a frame ends.
    import zstandard

    frame = None
    try:
        while data := raw.read(_ZSTD_CHUNK_BYTES):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame is not None:
        raise EOFError("it ends too early")


def _refuse(path: Path, error: OSError) -> NoReturn:
    what = os.strerror(error.errno) if error.errno else str(error)
    raise InputError(f"{path} cannot be read: {what}; check its owner, mode and disk") from None
