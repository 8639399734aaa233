"""Under what conditions a run runs: machine, versions, source, command."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from etude.records.shape import Object, at_least

_PACKAGES = ("etude-workbench", "torch", "transformers", "tokenizers", "safetensors", "numpy", "sacrebleu")
_GPU = Object({"name": str, "memory_bytes": int})
_KNOWN = {
    "recipe_hash": str,
    "host": str, "pid": int, "command": list[str], "versions": dict[str, str], "data_fingerprint": str,
    "git": (Object({"commit": str, "dirty": bool}), None), "threads": int, "device": str, "devices": int,
    "precision": str, "micro_batch_size": Annotated[int, at_least(1)], "own_code": (dict[str, str], None),
    "base": (Object({"from": str, "path": str, "sha256": str}), None),
    "machine": Object(optional={
        "platform": str, "cpu": str, "cores": (int, None), "memory_bytes": int, "disk_bytes": int,
        "disk_free_bytes": int, "gpus": [_GPU],
    }),
}  # fmt: skip
# As a record has it, of which older versions wrote less; and as environment.json has it, which a run goes by.
ENVIRONMENT = Object(optional=_KNOWN)
CONDITIONS = Object({name: _KNOWN[name] for name in ("data_fingerprint", "micro_batch_size")}, _KNOWN)


def describe_environment() -> dict[str, Any]:
    """Machine, versions, git state of the working folder and command line; no environment variables, no secrets."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "git": _git(),
    }


def describe_machine() -> dict[str, Any]:
    """Platform, CPU, cores this process may use, bytes of memory and disk, and the GPUs."""
    import psutil

    disk = shutil.disk_usage(".")
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
    """What differs between two environments in ways that may change bits: versions, machine, devices, precision."""
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
    """Commit of the working folder, and whether files differ from it.

    The folder may be a stranger's, whose .git/config can name programs for git to run (fsmonitor, filters, hooks). Git
    reads the index and the objects of the folder here, but the configuration of an empty repository.
    """

    def ask(*words: str, **environment: str) -> list[str]:
        return subprocess.run(
            ["git", *words], capture_output=True, timeout=5, check=True, encoding="utf-8", errors="surrogateescape",
            stdin=subprocess.DEVNULL, env={**os.environ, **environment},
        ).stdout.splitlines()  # fmt: skip

    try:
        # Asked for a hash and for paths, git runs nothing.
        paths = ("--show-toplevel", "--git-path", "index", "--git-path", "objects")
        commit, top, index, objects = ask("rev-parse", "HEAD", *paths)
        with tempfile.TemporaryDirectory(prefix="etude-git-") as name:
            folder = Path(name)
            (folder / "objects").mkdir()
            (folder / "refs").mkdir()
            (folder / "HEAD").write_text(f"{commit}\n", encoding="utf-8")
            if len(commit) == 64:
                config = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n"
                (folder / "config").write_text(config, encoding="utf-8")
            shutil.copy2(index, folder / "index")  # with its time, by which git knows what changed
            dirty = ask(
                "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all",
                GIT_DIR=name, GIT_WORK_TREE=top, GIT_OBJECT_DIRECTORY=str(Path(objects).absolute()),
                GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1",
            )  # fmt: skip
        return {"commit": commit, "dirty": bool(dirty)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


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
        return [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            }
            for handle in handles
        ]
    except pynvml.NVMLError:
        return []
