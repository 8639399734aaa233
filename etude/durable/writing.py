"""Files written whole or not at all, and still there after a power cut.

A file is written under a temporary name, fsynced, renamed, and its folder fsynced.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.durable.calls import call, storage_error, write_all
from etude.durable.folders import sync_folder

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFTOVER = re.compile(r"\..+\.[0-9]+\.tmp", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """Size in bytes and SHA-256 (hex) of a file as it was written."""

    size: int
    sha256: str


def write_file(path: Path, chunks: bytes | Iterable[bytes | memoryview], *, private: bool = False) -> Written:
    """Write a file so that at every moment either the old or the new content is there, whole.

    private: for no other user to read

    Raises: StorageError if the disk is full or fails; the temporary file is removed then.
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
            call("rename", path, lambda: temporary.rename(path))
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, error) from error
    return Written(size, digest.hexdigest())


@contextlib.contextmanager
def new_files(*paths: Path) -> Iterator[None]:
    """Take names that nobody has, all or none: empty files to be written, gone again if the block fails.

    Raises: FileExistsError with the name that is there; StorageError.
    """
    made: list[Path] = []
    try:
        for path in paths:
            try:
                os.close(os.open(path, _NEW_FILE, 0o644))
            except FileExistsError:
                raise
            except OSError as error:
                raise storage_error(path, error) from error
            made.append(path)
        yield
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> Written:
    """Write a value as indented JSON without NaN and infinities; bytes that are no UTF-8 become escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_file(path, text.encode("utf-8", "backslashreplace"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder; a file being written stays."""
    try:
        names = [path for path in folder.iterdir() if _LEFTOVER.fullmatch(path.name)]
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
