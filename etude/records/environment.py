"""The conditions of a run: machine, versions, source, command."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import EtudeError
from etude.records.shape import Object, at_least

_PACKAGES = ("etude-workbench", "torch", "transformers", "tokenizers", "safetensors", "numpy", "sacrebleu")
_GPU = Object({"name": str, "memory_bytes": int})
_KNOWN = {
    "recipe_hash": str, "host": str, "pid": int, "command": list[str], "versions": dict[str, str],
    "data_fingerprint": str, "git": (Object({"commit": str, "dirty": (bool, None)}), None), "threads": int,
    "device": str, "devices": int, "precision": str, "micro_batch_size": Annotated[int, at_least(1)],
    "run": dict[str, str | bool],
    "notify": [Object()],
    "own_code": (dict[str, str], None), "base": (Object({"from": str, "path": str, "sha256": str}), None),
    "machine": Object(optional={
        "platform": str, "cpu": str, "cores": (int, None), "memory_bytes": int, "disk_bytes": int,
        "disk_free_bytes": int, "gpus": [_GPU],
    }),
}  # fmt: skip
# Address space of git when it reads HEAD and refs, and when it also maps index and packs.
_GIT_BYTES, _GIT_STATUS_BYTES = 256 << 20, 1 << 30
# As a record has it, of which older versions wrote less; and as environment.json has it, which a run goes by.
ENVIRONMENT = Object(optional=_KNOWN)
CONDITIONS = Object({name: _KNOWN[name] for name in ("data_fingerprint", "micro_batch_size")}, _KNOWN)


def describe_environment(folder: Path = Path()) -> dict[str, Any]:
    """Machine, versions, git state of the working folder and command line; no environment variables.

    folder: whose disk is the one of the machine
    """
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": [*_program(Path(sys.argv[0])), *sys.argv[1:]],
        "machine": describe_machine(folder),
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "git": _git(),
    }


def _program(path: Path) -> list[str]:
    """The program as it was typed: a module that Python runs is named by its folder."""
    return ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]


def describe_machine(folder: Path = Path()) -> dict[str, Any]:
    """Platform, CPU, cores this process may use, bytes of memory and of the disk of a folder, the GPUs."""
    import psutil

    disk = shutil.disk_usage(folder)
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "gpus": _gpus(),
    }


def find_changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Differences of versions, machine, devices and precision, which may change bits."""
    changes = []
    for section, keys in (("versions", after["versions"]), ("machine", ("cpu", "cores", "gpus"))):
        for key in keys:
            old, new = before.get(section, {}).get(key), after[section].get(key)
            if old != new:
                changes.append(f"{key} was {old}, is {new}")
    for key in ("device", "devices", "precision", "threads"):
        if before.get(key) != after.get(key):
            changes.append(f"{key} was {before.get(key)}, is {after.get(key)}")
    return changes


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _git() -> dict[str, Any] | None:
    """Commit of the working folder, and whether files differ from it: None if git cannot tell in 5 s.

    The folder may be a stranger's. Its .git/config can name programs for git to run (fsmonitor, filters,
    hooks), so git reads its index and objects where they are, but the configuration of an empty repository.
    Its files may be devices without an end, so git gets little memory, and may write nothing.
    """
    try:
        # Asked for a hash and for paths, git runs nothing.
        paths = ("--show-toplevel", "--git-path", "index", "--git-path", "objects")
        commit, top, index, objects = _ask_git(
            "rev-parse", "HEAD", *paths, most_bytes=_GIT_BYTES
        ).splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit):
        return None
    try:
        is_dirty = _is_dirty(commit, top, Path(index).absolute(), Path(objects).absolute())
    except (OSError, ValueError, subprocess.SubprocessError, EtudeError):
        is_dirty = None
    return {"commit": commit, "dirty": is_dirty}


def _is_dirty(commit: str, top: str, index: Path, objects: Path) -> bool:
    durable.check_plain(index)
    with durable.temporary_folder("etude-git-") as folder:
        (folder / "objects").mkdir()
        (folder / "refs").mkdir()
        durable.write_file(folder / "HEAD", f"{commit}\n".encode())
        config = "[core]\nrepositoryformatversion = 1\npackedGitWindowSize = 16m\n"
        if len(commit) == 64:
            config += "[extensions]\nobjectformat = sha256\n"
        durable.write_file(folder / "config", config.encode())
        changed = _ask_git(
            "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all",
            most_bytes=_GIT_STATUS_BYTES, GIT_DIR=str(folder), GIT_WORK_TREE=top, GIT_INDEX_FILE=str(index),
            GIT_OBJECT_DIRECTORY=str(objects), GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1",
        )  # fmt: skip
    return bool(changed)


def _ask_git(*words: str, most_bytes: int, **environment: str) -> str:
    """The output of a git command that has so much memory at most. Raises: OSError, SubprocessError."""
    limited = f'ulimit -v {most_bytes >> 10} 2>/dev/null; ulimit -c 0; ulimit -f 0 && exec git "$@"'
    return subprocess.run(
        ["/bin/sh", "-c", limited, "git", *words], capture_output=True, timeout=5, check=True,
        encoding="utf-8", errors="surrogateescape", stdin=subprocess.DEVNULL,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **environment},
    ).stdout  # fmt: skip


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[dict[str, Any]]:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        sizes = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles]
        names = map(pynvml.nvmlDeviceGetName, handles)
        return [{"name": name, "memory_bytes": size} for name, size in zip(names, sizes)]
    except pynvml.NVMLError:
        return []
