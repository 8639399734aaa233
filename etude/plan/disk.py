"""The room that a run takes at its peak on the disks that it writes to."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from etude.errors import InputError
from etude.plan import Plan
from etude.plan.forecast import checkpoint_bytes
from etude.recipe.section import is_address
from etude.records.events import Finding, Forecast
from etude.text import plural, rough_size

ADVICE = "make room, keep fewer with checkpoint.keep, or use another disk"

# A mirror keeps two copies, each of the newest and the best checkpoint, while it writes another.
_MIRRORED = 4


def peak_disk(plan: Plan, made: Forecast) -> dict[str, int]:
    """Bytes by what they are: checkpoints with records, the one being written, and the exported model."""
    return {
        "checkpoints and records": made.disk_bytes,
        "the checkpoint being written": checkpoint_bytes(plan),
        "an exported model": 4 * plan.parameters["total"],
    }


@dataclass(frozen=True)
class Claim:
    """The bytes that a run or its mirror takes at its peak by what they are, and those free on that disk."""

    what: str
    folder: Path
    parts: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        return sum(self.parts.values())

    @property
    def free(self) -> int:
        return shutil.disk_usage(_there(self.folder)).free

    @property
    def shortage(self) -> str:
        """A sentence on what does not fit; empty if all does."""
        if self.nbytes <= (free := self.free):
            return ""
        shown = ", ".join(f"{name} {rough_size(size)}" for name, size in self.parts.items() if size)
        return (
            f"{self.what} takes up to {rough_size(self.nbytes)} in {self.folder} ({shown}), and "
            f"{rough_size(free)} are free"
        )


def claim_disk(plan: Plan, made: Forecast, runs: Path) -> list[Claim]:
    """The claims of a run, and of its mirror if that is a folder; prepared data are in their cache."""
    parts, mirror = peak_disk(plan, made), plan.recipe.run.mirror
    claims = [Claim("the run", runs, parts)]
    if mirror is not None and not is_address(mirror):
        copies = _MIRRORED * checkpoint_bytes(plan) + made.disk_bytes // 10
        if _device(Path(mirror)) == _device(runs):
            parts["the mirror on the same disk"] = copies
        else:
            claims.append(Claim("run.mirror", Path(mirror), {"copies": copies}))
    return claims


def require_disk(plan: Plan, made: Forecast, runs: Path) -> None:
    """Check that a run fits the free space of its disks. Raises: InputError with what takes the room."""
    for claim in claim_disk(plan, made, runs):
        _require(claim)


def find_shortages(plan: Plan, made: Forecast, runs: Path) -> Iterator[Finding]:
    """Findings on disks that a run is likely to fill, before its first step."""
    for claim in claim_disk(plan, made, runs):
        if claim.shortage:
            yield Finding(0, "little disk", claim.shortage, ADVICE)


def require_room(parts: Mapping[str, int], folder: Path, what: str) -> None:
    """Check that the disk of a folder holds what is to come, given by its parts. Raises: InputError."""
    _require(Claim(what, folder, parts))


def require_checkpoints(plan: Plan, runs: Path) -> None:
    """Check that a disk holds the checkpoints that a run makes for certain. Raises: InputError."""
    recipe, made = plan.recipe, 1
    if recipe.checkpoint.every_steps and recipe.evaluate.patience is None:
        made = -(-plan.steps // recipe.checkpoint.every_steps)
    if recipe.checkpoint.keep != "all":
        made = min(made, recipe.checkpoint.keep + 1)  # one is written before another goes
    require_room({plural(made, "checkpoint"): made * checkpoint_bytes(plan)}, runs, "the run")


def _require(claim: Claim) -> None:
    if claim.shortage:
        raise InputError(f"{claim.shortage}; {ADVICE}")


def _device(path: Path) -> int:
    return _there(path).stat().st_dev


def _there(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())
