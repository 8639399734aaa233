"""Files written whole or not at all, and still there after a power cut.

A file is written under a temporary name, fsynced, renamed, and its folder fsynced.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.durable.calls import call, storage_error, write_all
from etude.durable.folders import sync_folder

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFTOVER = re.compile(r"\.(.+)\.[0-9]+\.tmp", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Written:
    """Size in bytes and SHA-256 (hex) of a file as it was written."""

    size: int
    sha256: str


def write_file(
    path: Path, chunks: bytes | Iterable[bytes | memoryview], *, private: bool = False, is_new: bool = False
) -> Written:
    """Write a file so that at every moment either the old or the new content is there, whole.

    private: for no other user to read; is_new: under a name that nobody has

    Raises: StorageError if the disk is full or fails; FileExistsError with the name that was to be new; the
    temporary file is removed then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # see _LEFTOVER
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = _open_held(temporary, 0o600 if private else 0o644)
        try:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                view = memoryview(chunk).cast("B")
                digest.update(view)
                size += len(view)
                write_all(descriptor, view, temporary)
            call("fsync", temporary, lambda: os.fsync(descriptor))
            if is_new:
                _name_new(temporary, path)
            else:
                call("rename", path, lambda: temporary.rename(path))
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if is_new and isinstance(error, FileExistsError):
            raise
        raise storage_error(path, error) from error
    return Written(size, digest.hexdigest())


def write_once(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Write a new file from its first byte to its last, on a disk that need not rename, lock or append.

    Whoever reads it has to know its hash: a kill leaves a part of it. After a failure it is removed.

    Raises: StorageError, also if there is such a file.
    """
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = call("open", path, lambda: os.open(path, _NEW_FILE, 0o644))
        try:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                digest.update(view)
                size += len(view)
                write_all(descriptor, view, path)
            call("fsync", path, lambda: os.fsync(descriptor))
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                path.unlink()
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error) from error
    return Written(size, digest.hexdigest())


def remove_file(path: Path, *, empty_first: bool = False) -> None:
    """Remove a plain file; emptied first, it takes no room in the bin of a disk that has one.

    Raises: StorageError.
    """
    try:
        if empty_first:
            flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(call("truncate", path, lambda: os.open(path, flags)))
        call("unlink", path, path.unlink)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error


def write_new_files(contents: Mapping[Path, bytes]) -> None:
    """Write files under names that nobody has, all or none; a call after a kill writes what is missing.

    One that is there with the same content counts as written.

    Raises: FileExistsError with the name that holds something else; StorageError.
    """
    for path, content in contents.items():
        _require_free(path, content)
        remove_leftovers(path.parent, of=path.name)
    made: list[Path] = []
    try:
        for path, content in contents.items():
            made.append(path)
            try:
                write_file(path, content, is_new=True)
            except FileExistsError:
                made.pop()
                _require_free(path, content)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> Written:
    """Write a value as indented JSON without NaN and infinities; bytes that are no UTF-8 become escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_file(path, text.encode("utf-8", "backslashreplace"))


def remove_leftovers(folder: Path, of: str = "") -> None:
    """Remove the temporary files that killed writers left in a folder; a file being written stays.

    of: the name of the file that they were to become, or any
    """
    try:
        found = [(path, _LEFTOVER.fullmatch(path.name)) for path in folder.iterdir()]
        names = [path for path, match in found if match and of in ("", match[1])]
    except OSError:
        return
    for path in names:
        with contextlib.suppress(OSError):  # it is held, a link, or gone
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    path.unlink()
            finally:
                os.close(descriptor)


def _open_held(temporary: Path, mode: int) -> int:
    """Open a temporary file and lock it, so that nobody takes it for a leftover."""
    while True:
        try:
            descriptor = call("open", temporary, lambda: os.open(temporary, _NEW_FILE, mode))
        except FileExistsError:  # left by a process of this number that was killed
            temporary.unlink()
            continue
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # it was removed before it was locked


def _name_new(temporary: Path, path: Path) -> None:
    """Give a file its name if nobody has it. Raises: FileExistsError with the name; OSError."""
    try:
        call("link", path, lambda: path.hardlink_to(temporary))
    except OSError as error:
        if error.errno in _NO_LINKS and not os.path.lexists(path):  # a disk without links
            call("rename", path, lambda: temporary.rename(path))
            return
        if error.errno in (errno.EEXIST, *_NO_LINKS):
            raise _taken(path) from None
        raise
    temporary.unlink()


def _require_free(path: Path, content: bytes) -> None:
    """Raises: FileExistsError with the name if it is that of anything but a file of this content."""
    with contextlib.suppress(FileNotFoundError):
        seen = path.lstat()
        is_same = stat.S_ISREG(seen.st_mode) and seen.st_size == len(content)
        if not is_same or path.read_bytes() != content:
            raise _taken(path)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
