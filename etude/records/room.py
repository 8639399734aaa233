"""The room that a run takes on its disk, and the removal of its weights or of all of it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from etude import durable
from etude.errors import InputError
from etude.records.folder import checkpoint_folders, list_checkpoints, require_own
from etude.records.lease import lock_run
from etude.records.store import Run


@dataclass(frozen=True)
class Room:
    """Bytes of a run: of its checkpoints, of those that `remove` takes by default, and of the rest."""

    checkpoints: int
    removable: int
    records: int


def measure_room(run: Run) -> Room:
    """The bytes that a run takes; links are not followed, and what is removed meanwhile does not count."""
    sizes = {path: _size(path) for _, path in checkpoint_folders(run.checkpoints)}
    removable = sum(size for path, size in sizes.items() if path != _kept(run))
    return Room(sum(sizes.values()), removable, _size(run.path) - sum(sizes.values()))


def remove(run: Run, *, weights: bool = False, everything: bool = False) -> int:
    """Remove the checkpoints of a run but its best; returns the bytes that are free then.

    weights: remove the best too, and keep the record. everything: remove the whole folder. Without a best
    checkpoint the newest stays. Nothing outside the folder is touched, and no link is followed.

    Raises: InputError if a process holds the run, or a part of it leads elsewhere; StorageError.
    """
    if run.path.is_symlink():
        raise InputError(f"{run.path} is a link; give the run that it leads to")
    require_own(run.path)
    lock = lock_run(run.path)
    try:
        before = _size(run.path)
        if everything:
            durable.remove_folder(run.path, first="run.json")
            return before
        for _, path in checkpoint_folders(run.checkpoints):
            if weights or path != _kept(run):
                durable.remove_folder(path, first="manifest.json")
        if weights:
            durable.remove_file(run.path / "best.json")
        return before - _size(run.path)
    finally:
        os.close(lock)


def _kept(run: Run) -> Path | None:
    """The checkpoint that stays: the best, or the newest."""
    names = [path.name for path in list_checkpoints(run.checkpoints)]
    best = run.best["checkpoint"] if run.best else None
    kept = best if best in names else names[-1] if names else None
    return run.checkpoints / kept if kept else None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_symlink() or not path.is_dir() else 0
    return total
