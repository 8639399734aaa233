"""The manifest of a checkpoint, without which it does not exist: its files with their sizes and SHA-256."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import DamageError, InputError, MissingError
from etude.records import shape
from etude.records.folder import step_of
from etude.records.head import HEAD

FORMAT = 1
_FILE = shape.Object({"size": int, "sha256": str})
_MANIFEST = shape.Object({"format": int, "run": str, "step": int, "files": {str: _FILE}}, {"journal": HEAD})


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises: DamageError if there is none, or no run writes it so."""
    try:
        manifest = durable.read_json_object(path / "manifest.json", follow=False)
    except MissingError:
        raise DamageError(f"checkpoint {path.name} has no manifest: its writing did not end") from None
    except InputError:
        raise damaged(path, "manifest.json cannot be read") from None
    if isinstance(manifest.get("format"), int) and manifest["format"] > FORMAT:
        raise InputError(
            f"checkpoint {path} has format {manifest['format']}; this etude reads {FORMAT}; update etude"
        )
    try:
        return dict(shape.fit(manifest, _MANIFEST))
    except ValueError as error:
        raise damaged(path, f"manifest.json: {error}") from None


def check_files(
    path: Path, manifest: dict[str, Any], run: str | None = None, needed: Collection[str] = ()
) -> dict[str, Any]:
    """The manifest, held against the files of its checkpoint.

    run: the id of the run that it is to be of. needed: files that it has to name, beside its state.

    Raises: DamageError that names the file that is not as written.
    """
    if run is not None and manifest["run"] != run:
        raise DamageError(f"checkpoint {path.name} belongs to run {manifest['run'][:80]}")
    for name, file in manifest["files"].items():
        try:
            is_inside = Path(name).name == name
            is_whole = is_inside and durable.is_written(path / name, file["size"], file["sha256"])
        except InputError:
            raise damaged(path, f"{name[:80]} is missing, or no plain file") from None
        except OSError as error:
            raise damaged(path, f"{name} cannot be read: {error.strerror}") from None
        if not is_whole:
            raise damaged(path, f"{name[:80]} is not what was written")
    for name in (*needed, "state.json"):
        if name not in manifest["files"]:
            raise damaged(path, f"its manifest does not name {name}")
    if manifest["step"] != step_of(path.name):
        raise damaged(path, f"its manifest is that of step {manifest['step']}")
    return manifest


def damaged(path: Path, what: str) -> DamageError:
    """The error that a checkpoint is not what was written."""
    return DamageError(f"checkpoint {path.name} is damaged: {what}")
