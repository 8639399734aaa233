"""A run out of its mirror: its folder made anew from the newest copy that is whole, on any machine."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from etude import durable
from etude.control.copy import (
    DATA,
    MOST_SMALL_BYTES,
    Manifest,
    Part,
    is_part,
    manifest_number,
    read_manifest,
)
from etude.control.place import Place, open_place
from etude.errors import DamageError, EtudeError, InputError, StorageError
from etude.recipe.section import is_address
from etude.records.folder import require_outside_runs, require_runs_folder
from etude.records.lease import write_lease
from etude.records.store import Run
from etude.text import plural, rough_size

_NAMED = 3


def restore(mirror: str, runs: Path) -> tuple[Run, list[str]]:
    """Make the folder of a run under `runs` again, and the prepared data that came with it.

    mirror: the folder or bucket that a recipe named, if it holds one run, or the folder of the run in it

    Returns the run, and what was wrong with newer copies. Every byte is held against its hash, and none lies
    outside the run folder and the cache of prepared data.

    Raises: InputError if there is no run, several, or the folder exists; DamageError if no copy is whole;
    StorageError. Nothing is left behind then.
    """
    place, problems = _find(mirror), list[str]()
    for manifest in _manifests(place, problems):
        try:
            return _make(place, manifest, runs), problems
        except DamageError as error:
            problems.append(str(error))
    raise _why_none(place, problems)


def is_mirror(given: str) -> bool:
    """True for an address, or for a folder that is no run and holds copies of one."""
    if is_address(given):
        return True
    try:
        return Path(given).is_dir() and not os.path.lexists(Path(given) / "run.json") and bool(_find(given))
    except (EtudeError, OSError, ValueError):
        return False


def find_copied(mirror: str, runs: Path) -> Run | None:
    """The run that a mirror holds, if its folder is under `runs` already. Raises: as `restore`."""
    place, problems = _find(mirror), list[str]()
    for manifest in _manifests(place, problems):
        folder = durable.inside(runs, manifest.run)
        return Run(folder) if folder.exists() else None
    raise _why_none(place, problems)


def _manifests(place: Place, problems: list[str]) -> Iterator[Manifest]:
    """The copies in a place that can be read, the newest first; faults of others join `problems`."""
    names = [name for name in place.names() if is_part(name)]
    numbered = sorted(((found, name) for name in names if (found := manifest_number(name))), reverse=True)
    for _, name in numbered:
        try:
            manifest = read_manifest(_read(place, name, durable.LARGEST_JSON_BYTES), name)
        except DamageError as error:
            problems.append(str(error))
            continue
        yield manifest


def _why_none(place: Place, problems: list[str]) -> DamageError:
    what = f"no copy in {place} is whole: {problems[0]}" if problems else f"{place} holds no copy of a run"
    return DamageError(f"{what}; give the mirror of another place, or start the run again")


def _find(mirror: str) -> Place:
    """The folder of the run in a mirror, which may be the mirror itself. Raises: InputError."""
    if not is_address(mirror) and not Path(mirror).is_dir():
        raise InputError(
            f"there is no mirror {mirror[:120]}; mount its disk, or give the folder of run.mirror"
        )
    place = open_place(mirror)
    names = place.names()
    if any(manifest_number(name) for name in names):
        return place
    found = []
    for name in names[:1000]:
        with contextlib.suppress(EtudeError):
            within = open_place(mirror, name)
            if any(manifest_number(each) for each in within.names()):
                found.append((name, within))
    if len(found) == 1:
        return found[0][1]
    if not found:
        raise InputError(f"{mirror[:120]} holds no run; give the folder that run.mirror named")
    some = ", ".join(name for name, _ in found[-_NAMED:])
    raise InputError(
        f"{mirror[:120]} holds {plural(len(found), 'run')} ({some}); give the folder of one of them in it"
    )


def _make(place: Place, manifest: Manifest, runs: Path) -> Run:
    """Make the folder of a copy, whole or not at all. Raises: DamageError, InputError, StorageError."""
    require_runs_folder(runs)
    require_outside_runs(runs)
    folder = durable.inside(runs, manifest.run)
    if folder.exists():
        raise InputError(f"{folder} exists already; continue it with etude resume, or move it away")
    durable.make_folder(runs)
    size = sum(part for places in manifest.files.values() for _, _, part in places)
    if size > (free := shutil.disk_usage(runs).free):
        _require_sizes(place, manifest)
        raise InputError(f"{folder} takes {rough_size(size)}, and {rough_size(free)} are free; make room")
    small: dict[str, bytes] = {}
    with durable.new_folder(folder) as hidden:
        durable.make_folder(hidden / "checkpoints")
        for path in manifest.files:
            if not path.startswith(f"{DATA}/"):
                _write(place, manifest, path, hidden / path, small)
        _require_run(Run(hidden), manifest)
        _restore_data(place, manifest, small)
        if manifest.state == "finished":
            durable.write_json(hidden / "lease.json", {"state": "finished", "left": True})
        else:
            write_lease(hidden, manifest.state, is_over=True)
    return Run(folder)


def _require_sizes(place: Place, manifest: Manifest) -> None:
    """Check that parts have the bytes that they are said to have. Raises: DamageError."""
    for name, part in manifest.parts.items():
        if part.size and not any(_chunks(place, name, part.size - 1)):
            raise DamageError(f"{name} is not what was written")


def _require_run(run: Run, manifest: Manifest) -> None:
    """Raises: DamageError if what was made is not the run that a copy is of."""
    try:
        identity, _ = run.info["id"], run.recipe
    except InputError as error:
        raise DamageError(f"the copy of {manifest.run} is none of a run: {error}") from None
    if identity != manifest.run:
        raise DamageError(f"the copy of {manifest.run} holds run {identity[:80]}")


def _restore_data(place: Place, manifest: Manifest, small: dict[str, bytes]) -> None:
    """Put the prepared data of a copy into the cache, unless they are there."""
    paths = [path for path in manifest.files if path.startswith(f"{DATA}/")]
    keys = {path.split("/")[1] for path in paths}
    for key in keys:
        folder = durable.inside(durable.cache_folder(DATA), key)
        if folder.exists():
            continue
        with durable.new_folder(folder) as hidden:
            for path in paths:
                if path.split("/")[1] == key:
                    _write(place, manifest, path, hidden / path.split("/")[2], small)


def _write(place: Place, manifest: Manifest, path: str, target: Path, small: dict[str, bytes]) -> None:
    durable.make_folder(target.parent)
    durable.write_file(target, _bytes(place, manifest, path, small))


def _bytes(place: Place, manifest: Manifest, path: str, small: dict[str, bytes]) -> Iterator[bytes]:
    """The bytes of a file of a copy. Raises: DamageError as soon as a part is not what was written."""
    for name, start, size in manifest.files[path]:
        part = manifest.parts[name]
        if size == part.size:
            yield from _checked(place, name, part)
            continue
        if name not in small:
            if part.size > MOST_SMALL_BYTES:
                raise DamageError(f"{name} is larger than the small files of a run may be")
            small[name] = b"".join(_checked(place, name, part))
        yield small[name][start : start + size]


def _checked(place: Place, name: str, part: Part) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(place, name):
        size += len(chunk)
        if size > part.size:
            break
        digest.update(chunk)
        yield chunk
    if size != part.size or digest.hexdigest() != part.sha256:
        raise DamageError(f"{name} is not what was written")


def _read(place: Place, name: str, most_bytes: int) -> bytes:
    content = b""
    for chunk in _chunks(place, name):
        content += chunk
        if len(content) > most_bytes:
            raise DamageError(f"{name} is larger than a manifest may be")
    return content


def _chunks(place: Place, name: str, start: int = 0) -> Iterator[bytes]:
    """The content of a file of a mirror from a byte on.

    Raises: DamageError if it cannot be read, or is no plain file.
    """
    try:
        yield from place.read(name, start)
    except (InputError, StorageError) as error:
        raise DamageError(str(error)) from None
