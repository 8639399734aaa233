"""Places for a mirror: a folder on another disk, or one in a bucket. Neither is relied on for more than
whole files under new names: no rename, no lock, no append, and no listing that is up to date.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from etude import durable
from etude.errors import EtudeError, InputError, MissingError, StorageError
from etude.recipe.schema import Recipe
from etude.recipe.section import is_address
from etude.records.folder import require_outside_runs

_CHUNK_BYTES = 8 << 20
_MOST_NAMES = 100_000


class Place(Protocol):
    """A folder of files that are written once. Raises, by each: StorageError or InputError."""

    def make(self) -> None:
        """Have the folder be there."""

    def names(self) -> list[str]: ...

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None: ...

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The content of a file from a byte on. Raises: MissingError if it is not there."""

    def remove(self, name: str, *, is_large: bool) -> None: ...


def open_place(mirror: str, name: str = "") -> Place:
    """The folder of a run in a mirror, or the mirror itself.

    Raises: InputError if there can be no such place, or a package for it is missing.
    """
    if is_address(mirror):
        return _Bucket(mirror, name)
    folder = Path(mirror)
    durable.check_name(folder)
    if not folder.parent.is_dir() or (os.path.lexists(folder) and not folder.is_dir()):
        what = (
            "is no folder" if os.path.lexists(folder) else f"cannot be made, as {folder.parent} is no folder"
        )
        raise InputError(f"run.mirror {folder} {what}; mount the disk, or give a folder on one that is there")
    return _Folder(durable.inside(folder, name) if name else folder)


def require_place(recipe: Recipe, runs: Path) -> None:
    """Check that a run of a recipe, in a folder of runs, can have the mirror that it names.

    Raises: InputError.
    """
    if (mirror := recipe.run.mirror) is None:
        return
    place = open_place(mirror)
    if isinstance(place, _Bucket):
        if place.is_here:
            raise InputError(f"run.mirror {mirror} is no bucket; give a folder of another disk by its path")
        return
    require_outside_runs(Path(mirror))
    if Path(os.path.realpath(mirror)).parent == Path(os.path.realpath(mirror)):
        raise InputError(f"run.mirror {mirror} is the root of this machine; give a folder on another disk")
    taken = [(runs, "the folder of the runs"), (durable.cache_root(), "$ETUDE_CACHE, which etude fills")]
    taken += [
        (Path(each), f"the data {each}, which copies of a run would join") for each in recipe.data.paths
    ]
    for folder, what in taken:
        if Path(os.path.realpath(mirror)).is_relative_to(os.path.realpath(folder)):
            raise InputError(f"run.mirror {mirror} is {what}, or in it; give a folder on another disk")


def mirror_rows(recipe: Recipe, run: Path) -> Iterator[tuple[str, str]]:
    """The mirror of a run for a reader, by its name, and whether the disk of the run has it too."""
    if (mirror := recipe.run.mirror) is not None:
        is_near = not is_address(mirror) and _there(Path(mirror)).stat().st_dev == run.stat().st_dev
        yield "mirror", f"{mirror}{', on the disk of the run and lost with it' if is_near else ''}"


def _there(folder: Path) -> Path:
    return folder if folder.is_dir() else folder.parent


class _Folder:
    """A folder of a disk that is mounted; where it is gone, the disk is, so no write makes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def make(self) -> None:
        durable.make_folder(self._path)

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._path.iterdir())[:_MOST_NAMES]
        except FileNotFoundError:
            raise MissingError(f"{self._path} does not exist") from None
        except OSError as error:
            raise StorageError(f"cannot list {self._path}: {error.strerror}") from error

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        durable.write_once(durable.inside(self._path, name), chunks)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        path = durable.inside(self._path, name)
        with durable.open_plain(path, follow=False) as file:
            try:
                file.seek(start)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
            except OSError as error:
                raise StorageError(f"cannot read {path}: {error.strerror}") from error

    def remove(self, name: str, *, is_large: bool) -> None:
        durable.remove_file(durable.inside(self._path, name), empty_first=is_large)


class _Bucket:
    """A folder behind an address that fsspec knows, as `s3://bucket/folder`."""

    def __init__(self, address: str, name: str) -> None:
        protocol = address.partition("://")[0]
        try:
            from fsspec.core import url_to_fs
            from fsspec.registry import known_implementations
        except ImportError:
            raise InputError(
                f"run.mirror {address} takes fsspec; run pip install fsspec {protocol}fs"
            ) from None
        self._shown = f"{address.rstrip('/')}/{name}".rstrip("/")
        try:
            self._fs: Any
            self._fs, root = url_to_fs(address)
        except ImportError:
            advice = known_implementations.get(protocol, {}).get("err") or f"install {protocol}fs"
            raise InputError(f"run.mirror {address} takes another package: {advice}") from None
        except Exception as error:
            raise InputError(
                f"run.mirror {address} cannot be opened: {str(error)[:200]}; give s3://bucket/folder or "
                "another address that fsspec knows"
            ) from None
        known = self._fs.protocol
        self.is_here = bool({"file", "memory"}.intersection([known] if isinstance(known, str) else known))
        self._root = f"{root.rstrip('/')}/{name}".rstrip("/")

    def __str__(self) -> str:
        return self._shown

    def make(self) -> None:
        with self._failures("write"):
            self._fs.makedirs(self._root, exist_ok=True)

    def names(self) -> list[str]:
        with self._failures("list"):
            self._fs.invalidate_cache()
            found = self._fs.ls(self._root, detail=False)
            return sorted(each.rstrip("/").rpartition("/")[2] for each in found)[:_MOST_NAMES]

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        with self._failures("write"), self._fs.open(f"{self._root}/{name}", "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self._failures("read"):
            self._fs.invalidate_cache()
            with self._fs.open(f"{self._root}/{name}", "rb") as file:
                file.seek(start)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

    def remove(self, name: str, *, is_large: bool) -> None:
        with self._failures("remove"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Whatever a service raises, as an error of ours: a package of it is not to be known here."""
        try:
            yield
        except EtudeError:
            raise
        except FileNotFoundError:
            raise MissingError(f"{self._shown} does not exist, or a file of it") from None
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:200]}"
            raise StorageError(f"cannot {what} {self._shown}: {said}") from error
