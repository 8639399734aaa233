"""What keeps a machine from training is named with what to do; a machine that trains passes."""

import importlib.metadata
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from etude import doctor
from etude.checks import Check, run_all
from etude.errors import EtudeError
from etude.processes import python_environment


def examine(runs: Path) -> dict[str, Check]:
    return {check.name.partition(",")[0]: check for check in doctor.examine(runs)}


def test_this_machine_trains(tmp_path: Path) -> None:
    found = examine(tmp_path / "not" / "yet")
    assert {name: found[name].state for name in found if found[name].state == "failed"} == {}
    assert found["versions"].state == "passed" and "torch" in found["versions"].words
    assert "GFLOP/s" in found["processor"].words
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that packages are to have, None for one that is not installed."""
    changed: dict[str, str | None] = {}
    real = importlib.metadata.version

    def version(name: str) -> str:
        told = changed.get(name, real(name))
        if told is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return told

    monkeypatch.setattr(importlib.metadata, "version", version)
    return changed


@pytest.mark.parametrize(
    "name, version, words",
    [
        (
            "torch",
            "2.9.1",
            "torch is 2.9.1, and etude-workbench needs >=2.10 (CVE-2025-32434",
        ),
        ("transformers", "4.57.0", "CVE-2026-4372"),
        ("jinja2", "3.1.5", "out of its sandbox): pip install 'jinja2>=3.1.6'"),
        (
            "zstandard",
            None,
            "etude-workbench needs zstandard, which is not installed: pip install 'zstandard>=0.23'",
        ),
        ("pydantic-core", "0.1", "and pydantic needs =="),
    ],
)
def test_a_package_that_others_do_not_take_is_named(
    name: str, version: str | None, words: str, versions: dict[str, str | None]
) -> None:
    versions[name] = version
    (check,) = run_all([("versions", doctor._versions)])
    assert check.state == "failed" and words in check.words


def test_a_pre_release_or_a_local_build_of_a_version_is_that_version(versions: dict[str, str | None]) -> None:
    versions["torch"] = "2.12.0.dev20261101+cu130"
    assert "all" in doctor._versions()


@pytest.mark.parametrize(
    "cuda, driver, state, words",
    [
        (None, None, "skipped", "no NVIDIA driver"),
        (None, "570.10", "failed", "torch 2.13 is built without CUDA"),
        ("13.0", "535.1", "failed", "finds no GPU under the NVIDIA driver 535.1"),
    ],
)
def test_a_gpu_that_torch_does_not_find_has_its_reason(
    cuda: str | None, driver: str | None, state: str, words: str
) -> None:
    def check() -> str:
        raise doctor._without_gpu("2.13", cuda, driver)

    (found,) = run_all([("GPU 0", check)])
    assert found.state == state and words in found.words


def test_a_device_that_computes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    real = torch.nn.functional.scaled_dot_product_attention

    def wrong(query: Any, *rest: Any, **options: Any) -> Any:
        out = real(query, *rest, **options)
        return out if query.dtype == torch.float64 else out * 1.01

    doctor._compute(torch.device("cpu"))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", wrong)
    with pytest.raises(EtudeError, match="is wrong by"):
        doctor._compute(torch.device("cpu"))


def test_folders_that_are_full_volatile_or_closed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12 - 10**9, 10**9))
    assert examine(tmp_path)["folder of runs"].state == "doubtful"
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 0, 10**12))
    monkeypatch.setattr(doctor, "_file_system", lambda place: "tmpfs")
    found = examine(tmp_path)
    assert found["folder of runs"].state == "doubtful" and "restart" in found["folder of runs"].words
    assert found["folder of temporary files"].state == "passed"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "try_folder", refuse)
    words = examine(tmp_path)["folder of runs"].words
    assert words == f"{tmp_path} cannot be written to (Permission denied); choose another folder"


def test_little_memory_few_files_and_too_many_threads_are_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**34, available=2**28))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr(doctor, "_quota", lambda: 0.5)
    checks = [("memory", doctor._memory), ("files", doctor._open_files), ("processor", doctor._processor)]
    memory, files, processor = run_all(checks)
    assert {memory.state, files.state} == {"doubtful"} and "ulimit -n 4096" in files.words
    import torch

    assert ("OMP_NUM_THREADS=1" in processor.words) == (torch.get_num_threads() > 1)


def test_another_encoding_is_doubtful() -> None:
    code = "from etude import checks, doctor\n(each,) = checks.run_all([('text', doctor._text)])\nprint(each.state, each.words)"
    environment = {**python_environment(), "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("doubtful the terminal takes") and "PYTHONUTF8=1" in told.stdout
