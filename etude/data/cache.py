"""Folders under `$ETUDE_CACHE` that are built once, whole or not at all, and shared by runs.

One process builds, others that want the same wait for it. `manifest.json` is written last: sizes and SHA-256
of all files, and of itself.
"""

import contextlib
import hashlib
import io
import json
import math
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.errors import InputError
from etude.records import shape
from etude.records.folder import require_outside_runs

VERIFY_BYTES = 256 << 20
_LARGEST_MANIFEST_BYTES = 64 << 20  # the names of some 600,000 files
_FILE = shape.Object({"size": int, "sha256": str})
# What `to_npy` writes before the numbers, without the two bytes of its length.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\0\{'descr': '(?P<dtype>[^']*)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,18}(, \d{1,18})*),?\), \} *\n"
)
_LOOK_SECONDS = 0.05
_OF_A_BUILDER = re.compile(r"[0-9a-f]{32}\.(tmp|lock)")
Files = dict[str, durable.Written]


def build_once(
    kind: str, key: str, build: Callable[[Path], tuple[Files, dict[str, Any]]], *, again: bool = False
) -> tuple[Path, bool]:
    """The folder `kind/key`, and True if it was built now.

    build(folder): writes its files, and returns them and the content of the manifest. again: build anew what
    is there. Raises: what `build` raised; InputError if the cache is in the folder of a run; StorageError if
    the disk fails.
    """
    folder = durable.inside(durable.cache_folder(kind), key)
    require_outside_runs(folder)
    temporary = folder.with_suffix(".tmp")
    durable.check_own_folder(folder)
    if not again and os.path.lexists(folder / "manifest.json"):
        return folder, False
    durable.make_folder(folder.parent)
    with _locked(folder.with_suffix(".lock")):
        _remove_leftovers(folder.parent)
        if not again and os.path.lexists(folder / "manifest.json"):
            return folder, False
        durable.remove_folder(temporary)
        try:
            durable.make_folder(temporary)
            files, content = build(temporary)
            entries = {name: {"size": file.size, "sha256": file.sha256} for name, file in files.items()}
            manifest = content | {"files": entries}
            signed = manifest | {"sha256": _digest(manifest)}
            written = durable.write_json(temporary / "manifest.json", signed)
            if written.size > _LARGEST_MANIFEST_BYTES:
                raise InputError(
                    f"the names of the files of data take {written.size >> 20:,} MiB, more than the "
                    f"{_LARGEST_MANIFEST_BYTES >> 20} MiB that are read; put them together into fewer JSONL "
                    "files"
                )
            durable.remove_folder(folder, first="manifest.json")
            durable.rename_folder(temporary, folder)
        finally:
            durable.remove_folder(temporary)
    return folder, True


@dataclass(frozen=True)
class Built:
    """A folder whose files are what its manifest says; its arrays are checked when they are read."""

    folder: Path
    manifest: dict[str, Any]

    def read(self, name: str) -> bytes:
        """The content of a file, of 256 MiB at most. Raises: InputError if it is not as it was written."""
        with self._open(name) as file:
            if self.manifest["files"][name]["size"] > VERIFY_BYTES:
                raise self.damaged(f"{name} is larger than {VERIFY_BYTES >> 20} MiB")
            return file.read()

    def array(
        self,
        name: str,
        dtype: npt.DTypeLike,
        shape: tuple[int | None, ...],
        *,
        least: float = 0,
        most: float = np.inf,
        is_mapped: bool = False,
    ) -> npt.NDArray[Any]:
        """The numbers in `name`.npy, from `least` to `most`, None in the shape for any.

        Those of a very large mapped file are not looked at. Raises: InputError for anything else.
        """
        with self._open(f"{name}.npy") as file:
            start = file.read(10)
            header = file.read(int.from_bytes(start[8:], "little"))
            parsed = _HEADER.fullmatch(start[:8] + header)
            sides = tuple(int(side) for side in parsed["shape"].replace(b",", b" ").split()) if parsed else ()
            wanted = tuple(side if each is None else each for side, each in zip(sides, shape))
            if parsed is None or parsed["dtype"].decode() != np.dtype(dtype).str or len(sides) != len(shape):
                raise self.damaged(f"{name}.npy holds no {np.dtype(dtype)} in {len(shape)} dimensions")
            if sides != wanted:
                raise self.damaged(f"{name}.npy is of shape {sides}, not {wanted}")
            return self._take(file, f"{name}.npy", sides, np.dtype(dtype), (least, most), is_mapped=is_mapped)

    def numbers(self, name: str, dtype: npt.DTypeLike, *, most: float = np.inf) -> npt.NDArray[Any]:
        """The numbers, (n,), in a file without a header, mapped. Raises: as `array`."""
        with self._open(name) as file:
            count, rest = divmod(self.manifest["files"][name]["size"], np.dtype(dtype).itemsize)
            if rest:
                raise self.damaged(f"{name} has {rest} bytes too many")
            return self._take(file, name, (count,), np.dtype(dtype), (0, most), is_mapped=True)

    def offsets(self, name: str, count: int | None, size: int) -> npt.NDArray[np.int64]:
        """The places where parts of `size` things begin, and the last one ends. Raises: as `array`."""
        offsets = self.array(name, np.int64, (count,), most=size)
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
            raise self.damaged(f"{name}.npy does not lead from 0 to {size:,}")
        return offsets

    def damaged(self, why: str) -> InputError:
        """The error that says what is wrong with the folder."""
        return InputError(
            f"prepared data {self.folder.name} is damaged: {why[:160]}; run etude prepare RECIPE --again"
        )

    def _open(self, name: str) -> BufferedReader:
        if name not in self.manifest["files"]:
            raise self.damaged(f"its manifest has no {name}")
        path = durable.inside(self.folder, name)
        try:
            return durable.open_plain(path, follow=False)
        except InputError as error:
            raise self.damaged(_shorten(error, path)) from None

    def _take(
        self, file: BufferedReader, name: str, sides: tuple[int, ...], dtype: np.dtype[Any],
        bounds: tuple[float, float], *, is_mapped: bool,
    ) -> npt.NDArray[Any]:  # fmt: skip
        count, offset = math.prod(sides), file.tell()
        if count * dtype.itemsize != os.fstat(file.fileno()).st_size - offset:
            raise self.damaged(f"{name} is not as long as its shape {sides}")
        try:
            if is_mapped and count:
                values = np.asarray(np.memmap(file, dtype, "r", offset, sides))
            else:
                values = np.fromfile(file, dtype, count).reshape(sides)
        except MemoryError:
            raise self.damaged(f"{name} does not fit into memory") from None
        (least, most), is_any = bounds, dtype.kind == "u" and bounds[1] == np.inf
        is_seen = count and not is_any and (not is_mapped or values.nbytes <= VERIFY_BYTES)
        if is_seen and not (values.min() >= least and values.max() <= most):
            raise self.damaged(f"{name} holds {values.min()} to {values.max()}, not {least} to {most}")
        return values


def open_built(folder: Path, kind: shape.Object) -> Built:
    """A folder with a manifest of a kind, and with the files in it; of very large ones only the size counts.

    Raises: InputError naming the file that is damaged.
    """
    built, path = Built(folder, {}), folder / "manifest.json"
    try:
        manifest = durable.read_json_object(path, most_bytes=_LARGEST_MANIFEST_BYTES, follow=False)
        if manifest.pop("sha256", None) != _digest(manifest):
            raise built.damaged("manifest.json is not what was written")
        manifest = shape.fit(manifest, shape.Object({**kind.required, "files": {str: _FILE}}, kind.optional))
        for name, entry in manifest["files"].items():
            path = durable.inside(folder, name)
            with durable.open_plain(path, follow=False) as file:
                is_whole = os.fstat(file.fileno()).st_size == entry["size"] and (
                    entry["size"] > VERIFY_BYTES
                    or hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
                )
            if not is_whole:
                raise built.damaged(f"{name} is not what was written")
    except (OSError, RecursionError) as error:
        raise built.damaged(f"{path.name} cannot be read ({type(error).__name__})") from None
    except ValueError as error:
        raise built.damaged(f"manifest.json: {error}") from None
    except InputError as error:
        is_ours = str(error).startswith("prepared data")
        raise error if is_ours else built.damaged(_shorten(error, path)) from None
    return Built(folder, manifest)


def require_whole(values: npt.NDArray[Any]) -> None:
    """Look at the size of the file behind mapped values, as to read beyond its end would end the process.

    A file that is replaced, as by `etude prepare --again`, stays whole for who has it mapped. Asked before
    each batch, it takes 3 microseconds. Raises: InputError.
    """
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and base.size() < len(base):
        raise InputError(
            f"prepared data is damaged: a file of {len(base):,} bytes was cut to {base.size():,} while it is "
            "in use; run etude prepare RECIPE --again"
        )


def to_npy(values: npt.NDArray[Any]) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; it is gone afterwards.

    Raises: BlockingIOError if it is held and `wait` is false; InputError if it is no plain file;
    StorageError.
    """
    while True:
        descriptor = durable.open_lock(path)
        try:
            # Asked again and again: a rank that slept in the system would look as if it hung.
            while not durable.lock(descriptor, path):
                if not wait:
                    raise BlockingIOError
                time.sleep(_LOOK_SECONDS)
            if os.fstat(descriptor).st_nlink == 0:
                continue  # the holder before us removed the file while we waited, so it keeps nobody else out
            try:
                yield
            finally:
                path.unlink()
            return
        finally:
            os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    """Remove temporary folders and files, and locks that nobody holds, of builders that were killed."""
    durable.remove_leftovers(parent)
    for name in {path.stem for path in parent.iterdir() if _OF_A_BUILDER.fullmatch(path.name)}:
        with contextlib.suppress(BlockingIOError, InputError):  # it is held, or none of ours
            durable.check_own_folder(parent / f"{name}.tmp")
            with _locked(parent / f"{name}.lock", wait=False):
                durable.remove_folder(parent / f"{name}.tmp")


def _shorten(error: InputError, path: Path) -> str:
    return f"{path.name} {str(error).removeprefix(f'{path} ').split(';')[0]}"


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
