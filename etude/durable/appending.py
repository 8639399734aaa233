"""Files that grow by whole lines: each append is one write(), on a line of its own."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from etude.durable.calls import CHUNK_BYTES, call, storage_error, write_all
from etude.errors import InputError

_SIZED_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GROWING_FILE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Appender:
    """An append-only file: each `append` is one write(), `sync` makes all of them durable.

    A line that somebody else left without its end is ended first, so that it costs no other.

    Raises: InputError if the path is a link or no plain file of this user with this one name; StorageError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, _GROWING_FILE, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise InputError(f"{path} is no plain file, so nothing is written to it; remove it") from None
            raise storage_error(path, error) from error
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            os.close(self._descriptor)
            raise InputError(
                f"{path} is not a plain file of this user with this one name, so nothing is written to it; "
                "copy the folder (cp -r) and use the copy"
            )

    def cut_torn_line(self) -> None:
        """Cut off a last line that a kill left half-written. Raises: StorageError."""
        try:
            end = size = os.fstat(self._descriptor).st_size
            while end and os.pread(self._descriptor, 1, end - 1) != b"\n":
                start = max(end - CHUNK_BYTES, 0)
                end = start + os.pread(self._descriptor, end - start, start).rfind(b"\n") + 1
            if end < size:
                os.ftruncate(self._descriptor, end)
        except OSError as error:
            raise storage_error(self.path, error) from error

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._descriptor).st_size

    @property
    def is_in_place(self) -> bool:
        """True if the path still leads to this file: nobody removed it, or put another one there."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    def read(self, start: int, most: int) -> bytes:
        """Bytes from a place on, at most so many. Raises: StorageError."""
        try:
            return os.pread(self._descriptor, most, start)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def append(self, data: bytes) -> None:
        """Append bytes. Raises: StorageError; what was appended in part is cut off again."""
        try:
            length = os.fstat(self._descriptor).st_size
            if length and os.pread(self._descriptor, 1, length - 1) != b"\n":
                data = b"\n" + data
            try:
                write_all(self._descriptor, memoryview(data), self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, length)
                raise
        except OSError as error:
            raise storage_error(self.path, error) from error

    def sync(self) -> None:
        try:
            call("fsync", self.path, lambda: os.fsync(self._descriptor))
        except OSError as error:
            raise storage_error(self.path, error) from error

    def close(self) -> None:
        os.close(self._descriptor)


def make_sized(path: Path, head: bytes, size: int) -> None:
    """Make a new file of a size that begins with `head`; the rest is for `write_at`. Raises: StorageError."""
    try:
        descriptor = call("open", path, lambda: os.open(path, _SIZED_FILE, 0o644))
        try:
            write_all(descriptor, memoryview(head), path)
            if hasattr(os, "posix_fallocate") and size:
                call(
                    "allocate", path, lambda: os.posix_fallocate(descriptor, 0, size)
                )  # a full disk is told now
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error) from error


def write_at(path: Path, data: bytes | memoryview, place: int) -> None:
    """Write bytes at a place of a file, which is made if it is not there; not durable.

    Raises: InputError if it is no plain file of this user with this one name, or ends before the place;
    StorageError.
    """
    try:
        descriptor = os.open(path, _GROWING_FILE & ~os.O_APPEND, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise InputError(f"{path} is no plain file, so nothing is written to it; remove it") from None
        raise storage_error(path, error) from error
    try:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
        if not is_ours or found.st_size < place:
            raise InputError(f"{path} is not the file that was written; remove it")
        os.lseek(descriptor, place, os.SEEK_SET)
        write_all(descriptor, memoryview(data), path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable. Raises: StorageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            call("fsync", path, lambda: os.fsync(descriptor))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error) from error
