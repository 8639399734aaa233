"""The only door for writing files, and the one for reading files that may come from a stranger.

Written: whole or not at all, and still there after a power cut. A file is written under a temporary name,
fsynced, renamed, and its folder fsynced. Appended lines are one write() each. Every system call of a write
passes through `_call`, where a test can make the n-th one fail or kill the process.

Read: plain files only, of a limited size. A pipe would wait for ever, a device never ends.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from etude.errors import InputError, MissingError, StorageError

T = TypeVar("T")
_CHUNK_BYTES = 8 << 20
# Files up to here are told apart by all of their content, 0.5 s at the 2 GB/s of a core; larger ones by
# samples of it.
WHOLE_BYTES = 1 << 30
_SAMPLE_BYTES, _SAMPLES = 1 << 20, 64
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFTOVER = re.compile(r"\..+\.[0-9]+\.tmp", re.DOTALL)
_GROWING_FILE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A JSON text takes up to 30 times its size in memory; the largest we know, the index of a model's shards, has
# some MB.
LARGEST_JSON_BYTES = 16 << 20
_LONGEST_PATH, _LONGEST_NAME = 4096, 255  # bytes, on Linux and macOS alike or less
_OTHER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
_LOOKED_AT_BYTES = 4096


@dataclass(frozen=True)
class Written:
    """Size in bytes and SHA-256 (hex) of a file as it was written."""

    size: int
    sha256: str


def cache_folder(kind: str) -> Path:
    """Where files of a kind lie that runs share and can be made again.

    Raises: as `cache_root`; InputError if a link stands where the folder of the kind should.
    """
    folder = cache_root() / kind
    check_own_folder(folder)
    return folder


def cache_root() -> Path:
    """`$ETUDE_CACHE`, else `~/.cache/etude`.

    Raises: InputError if that is no folder and cannot become one.
    """
    try:
        folder = Path(os.environ.get("ETUDE_CACHE") or Path.home() / ".cache" / "etude")
        check_name(folder)
        is_folder = folder.is_dir() or not os.path.lexists(folder)
    except RuntimeError:
        raise InputError("this user has no home; set ETUDE_CACHE to a folder that etude may fill") from None
    except InputError as error:
        raise InputError(f"ETUDE_CACHE: {error}") from None
    if not is_folder:
        raise InputError(f"ETUDE_CACHE is {folder}, which is not a folder; set it to one that etude may fill")
    return folder


def check_own_folder(path: Path) -> None:
    """Check that a folder of ours is one, or not there yet.

    Raises: InputError if it is a link, or anything else.
    """
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        what = "a link" if path.is_symlink() else "no folder"
        raise InputError(
            f"{path} is {what}, where etude keeps a folder of its own; remove it, and run this again"
        )


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder. Raises: InputError if `name` would lead anywhere else."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(
            f"{name[:80]!r} is no name for a file in {folder.name}; give a name without a folder"
        )
    return folder / name


def write_file(path: Path, chunks: bytes | Iterable[bytes | memoryview]) -> Written:
    """Write a file so that at every moment either the old or the new content is there, whole.

    Raises: StorageError if the disk is full or fails; the temporary file is removed then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # see _LEFTOVER
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = _open_held(temporary)
        try:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                view = memoryview(chunk).cast("B")
                digest.update(view)
                size += len(view)
                _write_all(descriptor, view, temporary)
            _call("fsync", temporary, lambda: os.fsync(descriptor))
            _call("rename", path, lambda: temporary.rename(path))
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _storage_error(path, error) from error
    return Written(size, digest.hexdigest())


def write_json(path: Path, value: Any) -> Written:
    """Write a value as indented JSON; NaN and infinities are refused, bytes that are no UTF-8
    become escapes."""
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


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to be filled, which takes its name at the end, or is gone if that fails.

    It is locked as long as the block runs; what a killed process left in its place is removed.

    Raises: InputError if another process is making the same folder; StorageError.
    """
    hidden = path.with_name(f".{path.name}.new")
    make_folder(path.parent)
    descriptor = _make_held(hidden, path)
    try:
        yield hidden
        rename_folder(hidden, path)
    except BaseException:
        remove_folder(hidden)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder with this prefix in the system's temporary folder, locked as long as the block runs, then
    gone.

    First those are removed that killed processes of this user left there.

    Raises: StorageError.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(
            OSError, StorageError
        ):  # another process is quicker, or the folder is another user's
            if left.lstat().st_uid == os.geteuid():
                remove_unheld(left)
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix))
        except OSError as error:
            raise _storage_error(place, error) from error
        if (descriptor := _hold(folder)) is not None:
            break
    try:
        yield folder
    finally:
        with contextlib.suppress(StorageError):  # the work is done; the next one tries again
            remove_folder(folder)
        os.close(descriptor)


def remove_unheld(folder: Path) -> bool:
    """Remove a folder that a killed process left; returns False if a process holds it, or a lock
    file in it."""
    with contextlib.ExitStack() as stack:
        for path, flags in ((folder, os.O_DIRECTORY), (folder / ".lock", os.O_NONBLOCK)):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                continue
            except OSError:  # held, or nobody can tell
                return False
        remove_folder(folder)
        return True


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in a folder that writers left which were killed; one that is being written
    stays.
    """
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


def remove_folder(path: Path, *, first: str | None = None) -> None:
    """Remove a folder; the file `first` goes before all others, so that a half-removed folder is known as
    such.

    Raises: InputError if it is a link or no folder, of which nothing is touched; StorageError.
    """
    check_own_folder(path)
    try:
        if first is not None and os.path.lexists(path / first) and not (path / first).is_dir():
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


def open_lock(path: Path) -> int:
    """Open a lock file, made if it is not there.

    Raises: InputError if it is a link or no plain file; StorageError.
    """
    try:
        descriptor = os.open(path, _LOCK_FILE, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise InputError(f"{path} is no plain file, so nothing can be locked by it; remove it") from None
        raise _storage_error(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is no plain file, so nothing can be locked by it; remove it")
    return descriptor


class Appender:
    """An append-only file: each `append` is one write(), `sync` makes all of them durable.

    Raises: InputError if the path is a link or no plain file of this user with this one name; StorageError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, _GROWING_FILE, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise InputError(f"{path} is no plain file, so nothing is written to it; remove it") from None
            raise _storage_error(path, error) from error
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
                start = max(end - _CHUNK_BYTES, 0)
                end = start + os.pread(self._descriptor, end - start, start).rfind(b"\n") + 1
            if end < size:
                os.ftruncate(self._descriptor, end)
        except OSError as error:
            raise _storage_error(self.path, error) from error

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._descriptor).st_size

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
    """SHA-256 (hex) of a plain file, read in pieces. Raises: InputError."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_written(path: Path, size: int, sha256: str) -> bool:
    """Whether a file, which is no link, has these bytes.

    Raises: as `open_plain`; OSError if it cannot be read.
    """
    with open_plain(path, follow=False) as file:
        return (
            os.fstat(file.fileno()).st_size == size
            and hashlib.file_digest(file, "sha256").hexdigest() == sha256
        )


def check_name(path: str | Path) -> None:
    """Check that a path can name a file or folder, whether there is one or not. Raises: InputError."""
    text = str(path)
    if not text or "\0" in text:
        what = "holds a NUL byte" if text else "is empty"
        raise InputError(f"the path {text!r} {what}; give the path of a file or folder, or . for this folder")
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        raise InputError(f"the path {text!r} cannot be a file name on this machine; give another") from None
    if len(name) >= _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in name.split(b"/")):
        raise InputError(
            f"the path {text[:60]!r}... is longer than a path may be: {_LONGEST_PATH - 1:,} bytes, and "
            f"{_LONGEST_NAME} for each name in it; give a shorter one"
        )


def content_key(path: Path) -> list[Any]:
    """What tells whether a plain file is still the same: its size, its time, and the SHA-256 of its content.

    Beyond 1 GiB it is that of the first and the last MiB and of 62 more at places that the size draws, so a
    change between them that keeps size and time is not noticed. Raises: InputError.
    """
    with open_plain(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size <= WHOLE_BYTES:
            return [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
        digest, last = hashlib.sha256(), status.st_size - _SAMPLE_BYTES
        places = {0, last, *(random.Random(status.st_size).randrange(last) for _ in range(_SAMPLES - 2))}
        for place in sorted(places):
            file.seek(place)
            digest.update(file.read(_SAMPLE_BYTES))
        return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


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
    """Whether a plain file is there that can be read; also of names that no file can have."""
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


def name_encoding(head: bytes) -> str:
    """Words for another encoding that the first bytes of a file show, as `it begins with FF FE, as UTF-16
    does`.

    Empty if they show none. UTF-16 and UTF-32 without a byte order mark are known by the NULs in their
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
    """Words for what keeps bytes from being UTF-8 text; empty for text."""
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
        raise InputError(f"{path} is not valid JSON: {str(error)[:120]}") from None


def read_json_object(
    path: Path, *, most_bytes: int = LARGEST_JSON_BYTES, follow: bool = True
) -> dict[str, Any]:
    """The object in a JSON file. Raises: as `read_json`; InputError for any other value."""
    value = read_json(path, most_bytes=most_bytes, follow=follow)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value


@dataclass
class FaultPlan:
    """Make system call number `at` (from 0) fail with `error`, or kill the process if `error` is None.

    `calls` collects (name, file name) of every call, so that a run without a fault tells how many points
    there are. `once` lets the calls after the fault through; a full disk stays full.
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


def _open_held(temporary: Path) -> int:
    """Open a temporary file and lock it, so that nobody takes it for a leftover."""
    while True:
        try:
            descriptor = _call("open", temporary, lambda: os.open(temporary, _NEW_FILE, 0o644))
        except FileExistsError:  # left by a process of this number that was killed
            temporary.unlink()
            continue
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # it was removed before it was locked


def _make_held(hidden: Path, path: Path) -> int:
    """Make and lock the folder that is to become `path`; returns the descriptor that holds it."""
    while True:
        try:
            _call("mkdir", hidden, hidden.mkdir)
        except FileExistsError:
            if not remove_unheld(hidden):
                raise InputError(
                    f"{path} is being made by another process; wait for it, or give another name"
                ) from None
            continue
        except OSError as error:
            raise _storage_error(path, error) from error
        if (descriptor := _hold(hidden)) is not None:
            return descriptor


def _hold(folder: Path) -> int | None:
    """Lock a folder that was just made; returns None if another process took it for a leftover and removed
    it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # a disk without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
            return descriptor
    os.close(descriptor)
    return None


def _write_all(descriptor: int, view: memoryview, path: Path) -> None:
    while len(view):
        piece = view[:_CHUNK_BYTES]
        view = view[_call("write", path, lambda piece=piece: os.write(descriptor, piece)) :]  # type: ignore[misc]


def _storage_error(path: Path, error: OSError) -> StorageError:
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: (
            "the file is larger than this system allows; raise the limit and run the same command again"
        ),
        errno.EROFS: "the disk is mounted read-only; mount it for writing and run the same command again",
        errno.EACCES: "no permission; choose a folder that you may write to",
        errno.EISDIR: "a folder is in its place; remove it, and run the same command again",
        errno.ENOTDIR: "a file is where a folder should be; move it, or choose another folder",
        errno.EIO: "the disk failed; check it, then run the same command again",
    }.get(error.errno or 0, "run the same command again once this is solved")
    return StorageError(f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}; {advice}")


_NOT_PLAIN = [
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
]


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
