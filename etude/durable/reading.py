"""Files that may come from a stranger: plain files only, of a limited size.

A pipe would wait for ever, a device never ends.
"""

import contextlib
import errno
import hashlib
import json
import os
import random
import stat
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from etude.errors import InputError, MissingError

# Files up to here are compared whole, 0.5 s at the 2 GB/s of a core; larger ones by samples.
_WHOLE_BYTES = 1 << 30
_SAMPLE_BYTES, _SAMPLES = 1 << 20, 64
# A JSON text takes up to 30 times its size in memory; the largest we know, the index of a model's shards, has
# some MB.
LARGEST_JSON_BYTES = 16 << 20
_OTHER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
_LOOKED_AT_BYTES = 4096
_NOT_PLAIN = [
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
]


def open_plain(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a plain file for reading; without `follow`, not through a link.

    Raises: MissingError if it is not there; InputError for a folder, pipe, device or socket, or without
    permission.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise _reading_error(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = next((name for test, name in _NOT_PLAIN if test(mode)), "not a plain file")
            raise InputError(f"{path} is {what}; give a plain file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_plain(path: Path, *, follow: bool = True) -> None:
    """Check that a file can be read, for a library that opens it by name. Raises: as `open_plain`."""
    open_plain(path, follow=follow).close()


def is_plain(path: Path, *, follow: bool = True) -> bool:
    """True if a plain file is there that can be read; False for a name that no file can have."""
    try:
        check_plain(path, follow=follow)
    except InputError:
        return False
    return True


def read_bytes(path: Path, *, most_bytes: int, follow: bool = True) -> bytes:
    """The content of a plain file. Raises: as `open_plain`; InputError if it is larger than `most_bytes`."""
    with open_plain(path, follow=follow) as file:
        try:
            content = file.read(most_bytes + 1)
        except OSError as error:
            raise _reading_error(path, error) from None
    if len(content) > most_bytes:
        raise InputError(f"{path} is larger than {most_bytes:,} bytes, the most that such a file may have")
    return content


def read_text(path: Path, *, most_bytes: int, follow: bool = True) -> str:
    """The content of a plain UTF-8 file, without a byte order mark.

    Raises: as `read_bytes`; InputError if no UTF-8.
    """
    content = read_bytes(path, most_bytes=most_bytes, follow=follow)
    if why := why_not_utf8(content):
        raise InputError(f"{path} is not UTF-8 text: {why}; save it as UTF-8")
    return content.decode("utf-8-sig")


def read_json(path: Path, *, most_bytes: int = LARGEST_JSON_BYTES, follow: bool = True) -> Any:
    """The value in a JSON file.

    Raises: as `read_text`; InputError if it is no JSON, nested too deeply, or an object has a key twice:
    readers differ in which of the two they take.
    """
    return parse_json(read_text(path, most_bytes=most_bytes, follow=follow), path)


def parse_json(text: str, path: Path) -> Any:
    """The value in the text of a JSON file. Raises: as `read_json`, with the name of the file."""

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        taken = dict(pairs)
        if len(taken) < len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise InputError(f"{path} has the key {twice[:80]!r} twice in one object; keep one of them")
        return taken

    try:
        return json.loads(text, object_pairs_hook=take)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        # Python's own word on a long number names a function of Python.
        why = str(error)[:120] if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise InputError(f"{path} is not valid JSON: {why}") from None


def read_json_object(
    path: Path, *, most_bytes: int = LARGEST_JSON_BYTES, follow: bool = True
) -> dict[str, Any]:
    """The object in a JSON file. Raises: as `read_json`; InputError for any other value."""
    value = read_json(path, most_bytes=most_bytes, follow=follow)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a plain file, read in pieces. Raises: InputError."""
    with _read_whole(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _read_whole(path: Path) -> Iterator[BufferedReader]:
    """Open a plain file, and name it where a disk fails while it is read. Raises: InputError."""
    with open_plain(path) as file:
        try:
            yield file
        except OSError as error:
            raise _reading_error(path, error) from None


def is_written(path: Path, size: int, sha256: str) -> bool:
    """True if a file, which is no link, has these bytes.

    Raises: as `open_plain`; OSError if it cannot be read.
    """
    with open_plain(path, follow=False) as file:
        return (
            os.fstat(file.fileno()).st_size == size
            and hashlib.file_digest(file, "sha256").hexdigest() == sha256
        )


def is_sampled(size: int) -> bool:
    """True if `content_key` reads samples only of a file of so many bytes."""
    return size > _WHOLE_BYTES


def content_key(path: Path) -> list[Any]:
    """Size, time and SHA-256 of a plain file: another key means another file.

    The hash of a file beyond 1 GiB is over its first and last MiB and 62 more at places that the size draws,
    so a change between them that keeps size and time is not noticed. Raises: InputError.
    """
    with _read_whole(path) as file:
        status = os.fstat(file.fileno())
        if not is_sampled(status.st_size):
            return [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
        digest, last = hashlib.sha256(), status.st_size - _SAMPLE_BYTES
        places = {0, last, *(random.Random(status.st_size).randrange(last) for _ in range(_SAMPLES - 2))}
        for place in sorted(places):
            file.seek(place)
            digest.update(file.read(_SAMPLE_BYTES))
        return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


def name_encoding(head: bytes) -> str:
    """Words for another encoding in the first bytes of a file, as `it begins with FF FE, as UTF-16 does`.

    Empty if there is none. UTF-16 and UTF-32 without a byte order mark are known by the NULs in their
    characters.
    """
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            return f"it begins with {mark.hex(' ').upper()}, as {name} does"
    looked_at = head[:_LOOKED_AT_BYTES]
    if 3 * (nuls := looked_at.count(0)) > len(looked_at) > 1:
        return (
            f"{nuls:,} of the first {len(looked_at):,} bytes are NUL, as in UTF-16, UTF-32 or a binary file"
        )
    return ""


def why_not_utf8(content: bytes) -> str:
    """The reason why bytes are no UTF-8 text; empty for text."""
    if why := name_encoding(content):
        return why
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        is_binary = any(byte < 9 for byte in content[:_LOOKED_AT_BYTES])
        return f"byte {error.start} is 0x{content[error.start]:02x}" + (
            "" if is_binary else ", as in Latin-1"
        )
    return ""


def _reading_error(path: Path, error: OSError | ValueError) -> InputError:
    shown = str(path).replace("\0", "\\0")
    if isinstance(error, ValueError):
        return InputError(f"{shown[:120]} is no file name: it holds a NUL byte")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingError(f"{shown} does not exist")
    if error.errno == errno.ELOOP:
        return InputError(f"{shown} is a link; give a plain file in its place")
    if error.errno == errno.ENAMETOOLONG:
        return InputError(f"{shown[:120]}... is longer than a file name may be")
    if error.errno == errno.ENXIO:
        return InputError(f"{shown} is a socket or a device; give a plain file")
    return InputError(f"{shown} cannot be read: {os.strerror(error.errno or errno.EIO)}")
