"""Folders under `$ETUDE_CACHE` that are built once, whole or not at all, and shared by runs.

One process builds, others that want the same wait for it. `manifest.json` is written last: sizes and SHA-256 of all
files, and of itself.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.errors import InputError

_VERIFY_BYTES = 256 << 20
_OF_A_BUILDER = re.compile(r"[0-9a-f]{32}\.(tmp|lock)")
Files = dict[str, durable.Written]


def build_once(
    kind: str, key: str, build: Callable[[Path], tuple[Files, dict[str, Any]]], *, again: bool = False
) -> tuple[Path, bool]:
    """The folder `kind/key`, and whether it was built now.

    build(folder): writes its files, and returns them and what the manifest is to say. again: build anew what is there.
    Raises: what `build` raised; StorageError if the disk fails.
    """
    folder = durable.inside(durable.cache_folder(kind), key)
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
            files, said = build(temporary)
            entries = {name: {"size": file.size, "sha256": file.sha256} for name, file in files.items()}
            manifest = {**said, "files": entries}
            durable.write_json(temporary / "manifest.json", {**manifest, "sha256": _digest(manifest)})
            durable.remove_folder(folder, first="manifest.json")
            durable.rename_folder(temporary, folder)
        finally:
            durable.remove_folder(temporary)
    return folder, True


def open_manifest(folder: Path) -> dict[str, Any]:
    """What was said of a folder, once its files are what the manifest says; of very large ones only sizes are checked.

    Raises: InputError naming the file that is damaged.
    """
    file = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_bytes())
        if manifest.pop("sha256") != _digest(manifest):
            raise ValueError("checksum")
        for name, entry in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != entry["size"]:
                raise ValueError("size")
            if entry["size"] <= _VERIFY_BYTES and durable.sha256_file(file) != entry["sha256"]:
                raise ValueError("checksum")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(
            f"prepared data {file} is damaged: it is not what was written; "
            "`etude prepare RECIPE --again` builds it anew"
        ) from None
    return manifest


def damaged(folder: Path, why: str) -> InputError:
    """The error that says what is wrong with a folder."""
    return InputError(f"prepared data {folder.name} is damaged: {why[:120]}; run etude prepare RECIPE --again")


def to_npy(values: npt.NDArray[Any]) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; it is gone afterwards.

    Raises: BlockingIOError if it is held and `wait` is false; InputError if it is no plain file; StorageError.
    """
    while True:
        descriptor = durable.open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
    """Remove what builders left that were killed: temporary folders and locks that nobody holds, temporary files."""
    durable.remove_leftovers(parent)
    for name in {path.stem for path in parent.iterdir() if _OF_A_BUILDER.fullmatch(path.name)}:
        with contextlib.suppress(BlockingIOError, InputError):  # it is held, or none of ours
            durable.check_own_folder(parent / f"{name}.tmp")
            with _locked(parent / f"{name}.lock", wait=False):
                durable.remove_folder(parent / f"{name}.tmp")


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
