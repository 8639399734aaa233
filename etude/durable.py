"""The only place that writes files: whole or not at all, and still there after a power cut.

A file is written under a temporary name, fsynced, renamed, and its folder fsynced. Appended lines are one write() each.
Every system call passes through `_call`, where a test can make the n-th one fail or kill the process.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from etude.errors import StorageError

T = TypeVar("T")
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Written:
    """Size in bytes and SHA-256 (hex) of a file as it was written."""

    size: int
    sha256: str


def cache_folder() -> Path:
    """Where files lie that runs share and can be made again: `$ETUDE_CACHE`, else `~/.cache/etude`."""
    return Path(os.environ.get("ETUDE_CACHE") or Path.home() / ".cache" / "etude")


def write_file(path: Path, chunks: bytes | Iterable[bytes | memoryview]) -> Written:
    """Write a file so that at every moment either the old or the new content is there, whole.

    Raises: StorageError if the disk is full or fails; the temporary file is removed then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = _call("open", temporary, lambda: os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
        try:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                view = memoryview(chunk).cast("B")
                digest.update(view)
                size += len(view)
                _write_all(descriptor, view, temporary)
            _call("fsync", temporary, lambda: os.fsync(descriptor))
        finally:
            os.close(descriptor)
        _call("rename", path, lambda: temporary.rename(path))
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _storage_error(path, error) from error
    return Written(size, digest.hexdigest())


def write_json(path: Path, value: Any) -> Written:
    """Write a value as indented JSON; NaN and infinities are refused, bytes that are no UTF-8 become escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_file(path, text.encode("utf-8", "backslashreplace"))


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make the new entry durable."""
    try:
        _call("mkdir", path, lambda: path.mkdir(parents=True, exist_ok=True))
        sync_folder(path.parent)
    except OSError as error:
        raise _storage_error(path, error) from error


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder in one durable step."""
    try:
        _call("rename", target, lambda: source.rename(target))
        sync_folder(target.parent)
    except OSError as error:
        raise _storage_error(target, error) from error


def remove_folder(path: Path, *, first: str | None = None) -> None:
    """Remove a folder; the file `first` goes before all others, so that a half-removed folder is known as such."""
    try:
        if first is not None and (path / first).exists():
            _call("unlink", path / first, (path / first).unlink)
            sync_folder(path)
        _call("rmtree", path, lambda: shutil.rmtree(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _storage_error(path, error) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _call("fsync", path, lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)


class Appender:
    """An append-only file: each `append` is one write(), `sync` makes all of them durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, data: bytes) -> None:
        """Append bytes. Raises: StorageError; what was appended in part is cut off again."""
        try:
            length = os.fstat(self._descriptor).st_size
            try:
                _write_all(self._descriptor, memoryview(data), self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, length)
                raise
        except OSError as error:
            raise _storage_error(self.path, error) from error

    def sync(self) -> None:
        try:
            _call("fsync", self.path, lambda: os.fsync(self._descriptor))
        except OSError as error:
            raise _storage_error(self.path, error) from error

    def close(self) -> None:
        os.close(self._descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class FaultPlan:
    """Make system call number `at` (from 0) fail with `error`, or kill the process if `error` is None.

    `calls` collects (name, file name) of every call, so that a run without a fault tells how many points there are.
    `once` lets the calls after the fault through; a full disk stays full.
    """

    at: int = -1
    error: int | None = None
    once: bool = True
    calls: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def faults(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Apply a fault plan to every write within the block."""
    global _plan  # noqa: PLW0603 - the plan must reach writes in every thread of the process
    previous, _plan = _plan, plan
    try:
        yield plan
    finally:
        _plan = previous


_plan: FaultPlan | None = None


def _call(name: str, path: Path, action: Callable[[], T]) -> T:
    if _plan is not None:
        index = len(_plan.calls)
        _plan.calls.append((name, path.name))
        if index == _plan.at or (index > _plan.at >= 0 and not _plan.once):
            if _plan.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(_plan.error, os.strerror(_plan.error or errno.EIO), str(path))
    return action()


def _write_all(descriptor: int, view: memoryview, path: Path) -> None:
    while len(view):
        piece = view[:_CHUNK_BYTES]
        view = view[_call("write", path, lambda piece=piece: os.write(descriptor, piece)) :]  # type: ignore[misc]


def _storage_error(path: Path, error: OSError) -> StorageError:
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: "the file is larger than this system allows; raise the limit and run the same command again",
        errno.EROFS: "the disk is mounted read-only; mount it for writing and run the same command again",
        errno.EACCES: "no permission; choose a folder that you may write to",
        errno.EIO: "the disk failed; check it, then run the same command again",
    }.get(error.errno or 0, "run the same command again once this is solved")
    return StorageError(f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}; {advice}")
