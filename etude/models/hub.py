"""Pretrained models on this machine: found in folders and in the hub's cache, never downloaded."""

import difflib
import os
import re
from pathlib import Path

from etude import durable
from etude.errors import InputError
from etude.models.catalogue import STORIES
from etude.recipe.load import at_home
from etude.text import command

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def find_model(given: str, revision: str | None = None) -> Path:
    """The folder of a model: the one given, or that of a hub id in the hub's cache on this machine.

    Raises: InputError that names what is missing and where it was looked for.
    """
    try:
        return _find(given, revision)
    except (OSError, ValueError) as error:  # too long a name, one with NUL, or a folder that may not be read
        reason = error.strerror if isinstance(error, OSError) else str(error)
        wrong = f"model.from: {given[:120]!r} cannot be looked up ({reason})"
        raise InputError(f"{wrong}; give another folder") from None


def find_config(given: str, revision: str | None = None) -> Path:
    """The folder of a model, or where it is not on this machine, one with the config.json of its story.

    Raises: as `find_model` for a model that is neither here nor in the catalogue; StorageError.
    """
    try:
        return find_model(given, revision)
    except InputError:
        if given not in STORIES:
            raise
    folder = durable.cache_folder("published") / given.replace("/", "--")
    durable.make_folder(folder)
    durable.write_json(folder / "config.json", STORIES[given].config)
    return folder


def fetch_command(given: str, revision: str | None = None) -> str | None:
    """The command of the hub that puts a model where `find_model` looks for it; None for a path."""
    if not _is_hub_id(given):
        return None
    return command("hf", "download", given, *(["--revision", revision] if revision else []))


def _is_hub_id(given: str) -> bool:
    is_path = given.startswith((".", "/", "~")) or ".." in given
    return not is_path and _HUB_ID.fullmatch(given) is not None


def _find(given: str, revision: str | None) -> Path:
    if given.startswith((".", "/", "~")) or Path(given).is_dir():
        folder = at_home(given)
        if not (folder / "config.json").is_file():
            what = "has no config.json" if folder.is_dir() else "does not exist"
            advice = "give a folder with config.json and safetensors, or a hub id"
            raise InputError(f"model.from: {folder} {what}; {advice}")
        return folder
    if not _is_hub_id(given):
        wrong = "neither a folder nor a hub id such as Qwen/Qwen2.5-Coder-1.5B"
        raise InputError(f"model.from is {given[:120]!r}, {wrong}")
    places = [root / ("models--" + given.replace("/", "--")) for root in _cache_roots()]
    for place in places:
        if snapshot := _snapshot(place, revision or "main"):
            return snapshot
    for place in filter(Path.is_dir, places):
        commits = sorted(path.parent.name for path in place.glob("snapshots/*/config.json"))
        there = f"there is {', '.join(commits)}" if commits else "no snapshot there has a config.json"
        wrong = f"revision {revision or 'main'} of {given} is not in {place}"
        advice = f"set model.revision, or fetch it with `{fetch_command(given, revision)}`"
        raise InputError(f"model.from: {wrong}; {there}; {advice}")
    looked = ", ".join(map(str, places))
    missing = f"model.from: {given} is not on this machine"
    raise InputError(f"{missing} (looked for {looked}); {_advise(given, revision)}")


def _cache_roots() -> list[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    named = [os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    return [Path(root) for root in dict.fromkeys([*(root for root in named if root), str(home / "hub")])]


def _snapshot(folder: Path, revision: str) -> Path | None:
    """The files of a revision (branch, tag or commit), where the cache has them."""
    if not re.fullmatch(r"[\w./-]+", revision) or ".." in revision:
        raise InputError(f"model.revision is {revision[:120]!r}; expected a commit, tag or branch")
    commit = revision
    with_name = folder / "refs" / revision
    if with_name.is_file():
        commit = durable.read_text(with_name, most_bytes=1 << 10).strip()
        if not re.fullmatch(r"\w+", commit):
            given = folder.name.removeprefix("models--").replace("--", "/")
            raise InputError(
                f"{with_name} names no commit; fetch the model again with `{fetch_command(given)}`"
            )
    snapshot = folder / "snapshots" / commit
    return snapshot if (snapshot / "config.json").is_file() else None


def _advise(given: str, revision: str | None) -> str:
    """The model of a similar name, or the command that fetches the one that is missing."""
    there = [
        path.name.removeprefix("models--").replace("--", "/")
        for root in _cache_roots()
        if root.is_dir()
        for path in root.glob("models--*")
    ]
    near = difflib.get_close_matches(given, [*there, *STORIES], n=1, cutoff=0.8)
    if near and near[0] != given:
        return f"did you mean {near[0]}? else fetch it with `{fetch_command(given, revision)}`"
    return f"fetch it with `{fetch_command(given, revision)}`, or give a folder; etude itself never downloads"
