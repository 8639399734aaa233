"""The room that a run takes at its peak on the disks that it writes to."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from etude.errors import InputError
from etude.plan import Plan
from etude.plan.forecast import checkpoint_bytes
from etude.recipe.section import is_address
from etude.records.events import Forecast
from etude.text import rough_size

# A mirror keeps two copies, each of the newest and the best checkpoint, while it writes another.
_MIRRORED = 4


def peak_disk(plan: Plan, made: Forecast) -> dict[str, int]:
    """Bytes by what they are: checkpoints with records, the one being written, and the exported model."""
    return {
        "checkpoints and records": made.disk_bytes,
        "the checkpoint being written": checkpoint_bytes(plan),
        "an exported model": 4 * plan.parameters["total"],
    }


def require_disk(plan: Plan, made: Forecast, runs: Path) -> tuple[int, int]:
    """Check that a run fits the free space of the disks of its folder and its mirror.

    Prepared data are in their cache by then. Returns the bytes at the peak, and those that are free.

    Raises: InputError with what takes the room and what would help.
    """
    parts, mirror = peak_disk(plan, made), plan.recipe.run.mirror
    copies = _MIRRORED * checkpoint_bytes(plan) + made.disk_bytes // 10
    if mirror is not None and not is_address(mirror):
        if _device(Path(mirror)) == _device(runs):
            parts["the mirror on the same disk"] = copies
        else:
            require_room({"copies": copies}, Path(mirror), "run.mirror")
    return require_room(parts, runs, "the run")


def require_room(parts: Mapping[str, int], folder: Path, what: str) -> tuple[int, int]:
    """Check that the disk of a folder holds what is to come, given by its parts, as `require_disk` does."""
    needed, free = sum(parts.values()), shutil.disk_usage(_there(folder)).free
    if needed > free:
        shown = ", ".join(f"{name} {rough_size(size)}" for name, size in parts.items() if size)
        raise InputError(
            f"{what} takes up to {rough_size(needed)} in {folder} ({shown}), and {rough_size(free)} are "
            "free; make room, keep fewer with checkpoint.keep, or use another disk"
        )
    return needed, free


def _device(path: Path) -> int:
    return _there(path).stat().st_dev


def _there(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())
