"""The script that is run wherever there is a GPU works end to end, with toy sizes on this machine."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
sys.path.insert(0, str(SCRIPT.parent))
PARTS = ["losses", "resume", "recompilations"]
OTHERS = [
    "packed", "pretrain", "lora", "memory", "generate", "profile", "unwatched", "presets", "windows",
    "precisions", "out_of_memory",
]  # fmt: skip


def test_parts_pass_in_processes_of_their_own_and_leave_their_figures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--out", str(out), "--seconds", "3000", "--only", *PARTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert [name for name in result if name in PARTS] == PARTS
    assert all(result[name].get("passed", True) and "error" not in result[name] for name in PARTS)
    assert result["losses"]["t5 fp32"]["gradient_error"] < 1e-5
    assert result["resume"]["whole"] == result["resume"]["killed"] != {}


@pytest.mark.parametrize("part", OTHERS)
def test_other_parts_pass_here_without_a_process_of_their_own(part: str) -> None:
    result = importlib.import_module("gpu").PARTS[part](True)
    assert result.get("passed", True) and json.loads(json.dumps(result)), result
    assert part != "pretrain" or result["eager"]["tokens_per_second"] > 0


def test_every_part_is_tested() -> None:
    assert {*PARTS, *OTHERS} == {*importlib.import_module("gpu").PARTS}


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--out", str(out), "--seconds", "0", "--only", "packed"]
    subprocess.run(command, capture_output=True, check=False)
    assert json.loads(out.read_text())["packed"] == {"skipped": "no time"}
