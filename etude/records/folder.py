"""The content of a run folder: checkpoints by name, and nothing that leads elsewhere."""

import json
import math
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.records.shape import Object, at_least, fit

_CHECKPOINT = re.compile(r"step-([0-9]{6,18})")
_FILES = (
    "run.json", "lease.json", "recipe.toml", "resolved.toml", "environment.json", "journal.jsonl",
    "journal.index", "control.jsonl", "log.txt", "best.json", "trainer_state.json", ".lock",
    "outbox.jsonl", "guard.txt", ".guard.lock",
)  # fmt: skip
_FOLDERS = ("checkpoints", "predictions", "report", "tensorboard", "wandb")


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint of a step: at least six digits, so `step-000200` and `step-1000000`."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """The step whose checkpoint has this name; None for `step-15` or `step-000015.bak`."""
    found = _CHECKPOINT.fullmatch(name)
    return int(found[1]) if found and checkpoint_name(int(found[1])) == name else None


def checkpoint_folders(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of the folders named as checkpoints, by step; they may have no manifest yet."""
    named = [(step_of(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(
        (step, path) for step, path in named if step is not None and path.is_dir() and not path.is_symlink()
    )


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints with a manifest, oldest first; not verified."""
    return [
        path
        for _, path in checkpoint_folders(folder)
        if durable.is_plain(path / "manifest.json", follow=False)
    ]


def as_argument(path: Path) -> str:
    """A run as commands take it: its name if it lies in the folder that they look in, else its path."""
    return shlex.quote(path.name if path.absolute().parent == Path("runs").absolute() else str(path))


def require_own(folder: Path) -> None:
    """Check that all that a run writes in its folder, or removes there, is its own.

    What a run does not write is left out: it may be anything.

    Raises: InputError for a link, a pipe or a device, a file of another user, or a file in the place of a
    folder.
    """
    for entry in _written(folder):
        try:
            found = os.lstat(entry)
        except FileNotFoundError:  # of a run that goes on
            continue
        parts = entry.relative_to(folder).parts
        is_folder, is_top = stat.S_ISDIR(found.st_mode), len(parts) == 1
        if stat.S_ISLNK(found.st_mode):
            problem = "is a link, through which a run would write or remove elsewhere"
        elif not (is_folder or stat.S_ISREG(found.st_mode)) or (
            is_top and is_folder != (parts[0] in _FOLDERS)
        ):
            problem = f"is not a plain {'folder' if parts[0] in _FOLDERS and is_top else 'file'}"
        elif found.st_uid != os.geteuid():
            problem = "belongs to another user"
        else:
            continue
        raise InputError(f"{entry} {problem}; copy the run folder with cp -rL, and use the copy")


def read_rows(path: Path, kind: Any) -> list[dict[str, Any]]:
    """The rows of a JSONL file that a run wrote, each as `fit` takes it for a kind.

    Raises: MissingError if there is none; InputError that names the first line that is not what a run writes.
    """
    rows: list[dict[str, Any]] = []
    with durable.open_plain(path, follow=False) as file:
        while line := file.readline(durable.LARGEST_JSON_BYTES):
            try:
                rows.append(fit(json.loads(line), kind))
            except (ValueError, RecursionError) as error:
                is_json = not isinstance(error, json.JSONDecodeError | RecursionError)
                where, problem = f"{path}:{len(rows) + 1}", error if is_json else "it is no JSON"
                raise InputError(f"{where} is damaged: {problem}; restore it from a copy") from None
    return rows


def read_part(path: Path, kind: Object) -> dict[str, Any]:
    """The object in a JSON file of a run folder. Raises: MissingError; InputError if it is damaged."""
    try:
        return fit_part(durable.read_json_object(path, follow=False), kind, path)
    except MissingError:
        raise MissingError(
            f"{path} does not exist; the folder is no run, or a part of one is missing"
        ) from None


def fit_part(values: dict[str, Any], kind: Object, path: Path) -> dict[str, Any]:
    """The values of a JSON file of a run folder in the form of its kind. Raises: InputError."""
    try:
        return dict(fit(values, kind))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; restore it from a copy") from None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a run folder; those of live ones stay."""
    for part in (folder, folder / "report", *_folders_within(folder / "predictions")):
        durable.remove_leftovers(part)


def is_run_folder(path: Path) -> bool:
    """True if a folder has what a run has at once: run.json and a folder for checkpoints."""
    return durable.is_plain(path / "run.json") and (path / "checkpoints").is_dir()


def require_outside_runs(path: Path) -> None:
    """Check that what a command writes lies in no run folder, also through links and `..`.

    Raises: InputError.
    """
    place = Path(os.path.realpath(path))
    for run in (place, *place.parents):
        if is_run_folder(run):
            raise InputError(
                f"{str(path)[:120]} is inside the folder of run {run.name}, where only that run writes; "
                "give a path outside of run folders"
            )


def require_runs_folder(runs: Path) -> None:
    """Check that a folder for runs is one, or can become one. Raises: InputError."""
    try:
        is_there, is_folder = os.path.lexists(runs), runs.is_dir()
    except (OSError, ValueError):
        is_there, is_folder = True, False
    if is_there and not is_folder:
        raise InputError(
            f"--runs {str(runs)[:120]} is no folder; give the folder that holds runs, or is to hold them"
        )


def _written(folder: Path) -> Iterator[Path]:
    """Everything in the folder that a run writes: files, folders, and their content."""
    yield from (folder / name for name in _FILES)
    for name in _FOLDERS:
        yield folder / name
        if name == "wandb":
            continue  # wandb makes links itself, also to its logs elsewhere, and another folder at each start
        if name == "checkpoints":
            named = [path for path in _entries(folder / name) if step_of(path.name) is not None]
            yield from named
            for path in named:
                yield from _everything(path)
        else:
            yield from _everything(folder / name)


def _everything(folder: Path) -> Iterator[Path]:
    """All entries under a folder; links are not followed."""
    for path in _entries(folder):
        yield path
        yield from _everything(path)


def _folders_within(folder: Path) -> Iterator[Path]:
    yield folder
    yield from (path for path in _everything(folder) if path.is_dir())


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder; none of a link or a file."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _checkpoint(name: str) -> str:
    if step_of(name) is None:
        raise ValueError(f"{name[:40]!r} is no checkpoint")
    return name


BEST = Object(
    {"checkpoint": Annotated[str, _checkpoint], "value": Annotated[float, at_least(-math.inf)]},
    {"metric": str, "step": int},
)
