"""Folders and locks: made, renamed and removed in durable steps, and held against other processes."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etude.durable.calls import call, storage_error
from etude.errors import InputError, StorageError

_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST_PATH, _LONGEST_NAME = 4096, 255  # bytes, on Linux and macOS alike or less


def cache_folder(kind: str) -> Path:
    """The folder of the shared files of a kind, which can be made again.

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


def check_own_folder(path: Path) -> None:
    """Check that a folder of ours is one, or not there yet.

    Raises: InputError if it is a link, or anything else.
    """
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        what = "a link" if path.is_symlink() else "no folder"
        raise InputError(
            f"{path} is {what}, where etude keeps a folder of its own; remove it, and run this again"
        )


def check_own_file(path: Path) -> None:
    """Check that a file of ours is a plain one of this user, or not there yet. Raises: InputError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{path} cannot be looked at: {error.strerror}; see to it, and run this again"
        ) from None
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return
    is_plain = stat.S_ISREG(found.st_mode)
    what = "another user's" if is_plain else "a link" if stat.S_ISLNK(found.st_mode) else "no plain file"
    raise InputError(f"{path} is {what}, where etude keeps a file of its own; remove it, and run this again")


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder. Raises: InputError if `name` would lead anywhere else."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(
            f"{name[:80]!r} is no name for a file in {folder.name}; give a name without a folder"
        )
    return folder / name


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make the new entry durable."""
    try:
        call("mkdir", path, lambda: path.mkdir(parents=True, exist_ok=True))
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder in one durable step."""
    try:
        call("rename", target, lambda: source.rename(target))
        sync_folder(target.parent)
    except OSError as error:
        raise storage_error(target, error) from error


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
    """A folder with this prefix in the system's temporary folder, locked while the block runs, then removed.

    Folders that killed processes of this user left there are removed first.

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
            raise storage_error(place, error) from error
        if (descriptor := hold(folder)) is not None:
            break
    try:
        yield folder
    finally:
        with contextlib.suppress(StorageError):  # the work is done; the next one tries again
            remove_folder(folder)
        os.close(descriptor)


def remove_unheld(folder: Path) -> bool:
    """Remove a folder that a killed process left; False if a process holds it, or a lock file in it."""
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


def remove_folder(path: Path, *, first: str | None = None) -> None:
    """Remove a folder, the file `first` before all others, so that a half-removed folder lacks it.

    Raises: InputError if it is a link or no folder, of which nothing is touched; StorageError.
    """
    check_own_folder(path)
    try:
        if first is not None and os.path.lexists(path / first) and not (path / first).is_dir():
            call("unlink", path / first, (path / first).unlink)
            sync_folder(path)
        call("rmtree", path, lambda: shutil.rmtree(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(path, error) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call("fsync", path, lambda: os.fsync(descriptor))
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
        raise storage_error(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is no plain file, so nothing can be locked by it; remove it")
    return descriptor


def lock(descriptor: int, path: Path, *, wait: bool = False) -> bool:
    """Lock an open lock file; False if another process holds it, for which `wait` waits.

    Raises: StorageError on a disk without locks, where nothing would keep two processes apart.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{path} cannot be locked: {os.strerror(error.errno or errno.ENOLCK)}, so nothing keeps two "
            "processes apart there; use a folder on another disk"
        ) from error
    return True


def _make_held(hidden: Path, path: Path) -> int:
    """Make and lock the folder that is to become `path`; returns the descriptor that holds it."""
    while True:
        try:
            call("mkdir", hidden, hidden.mkdir)
        except FileExistsError:
            if not remove_unheld(hidden):
                raise InputError(
                    f"{path} is being made by another process; wait for it, or give another name"
                ) from None
            continue
        except OSError as error:
            raise storage_error(path, error) from error
        if (descriptor := hold(hidden)) is not None:
            return descriptor


def hold(folder: Path) -> int | None:
    """Lock a folder that was just made; None if another process removed it as a leftover."""
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
