"""`python -m etude` answers with exit codes, imports nothing of the folder it stands in, and ends well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("typer", "rich", "json", "pydantic", "tomllib", "torch", "numpy", "etude_plugin")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with modules named like those that the program imports, each of which leaves a canary."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("open('canary', 'a').write(__name__)\n")
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip


def test_a_command_in_the_folder_of_a_stranger_imports_nothing_of_it(stranger: Path) -> None:
    done = run(stranger, "-m", "etude", "runs")
    assert done.returncode == 0, done.stderr
    assert not (stranger / "canary").exists()


def test_an_unknown_command_ends_with_code_two(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "etude", "dance")
    assert done.returncode == 2 and "dance" in done.stderr


def test_what_is_to_be_done_at_the_end_of_a_process_is_done(tmp_path: Path) -> None:
    script = (
        "import atexit, sys\natexit.register(print, 'the end')\nsys.argv = ['etude', '--help']\n"
        "from etude.__main__ import program\nprogram()\n"
    )
    done = run(tmp_path, "-c", script)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("the end")
