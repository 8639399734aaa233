"""Programs that etude starts run nothing of the folder they stand in, and end when it does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from etude.control.ranks import FOLDER, SOCKET
from etude.processes import python_environment
from tests.bases import write_corpus
from tests.processes import listening
from tests.recipes import tiny

# As the script that pip installs: Python puts the folder of the script on the path, not the current one.
SCRIPT = "from etude.__main__ import program\nif __name__ == '__main__':\n    program()\n"
# A data pool of four batches, in a program of somebody's own.
POOL = """
import os, sys, time
from etude.data.pool import map_batches
if __name__ == "__main__":
    print(*map_batches(os.path.basename, ["a/1", "b/2", "c/3", "d/4"]), flush=True)
    print(*map_batches(time.sleep, [float(sys.argv[1])] * 4), flush=True)
"""
NAMES = (
    "json", "struct", "socket", "selectors", "multiprocessing", "pickle", "torch", "numpy", "etude",
    "tempfile",
)  # fmt: skip


def plant(folder: Path) -> Path:
    """A folder of a stranger: modules named like those that programs import, each of which leaves
    a canary."""
    folder.mkdir()
    for name in NAMES:
        text = f"open({str(folder / 'canary')!r}, 'a').write({name!r})\nraise SystemExit(99)\n"
        (folder / f"{name}.py").write_text(text)
    return folder


def run(folder: Path, script: str, *words: object, cache: Path) -> subprocess.CompletedProcess[str]:
    path = folder.parent / "bin" / "program"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    return subprocess.run(
        [sys.executable, str(path), *map(str, words)], cwd=folder, capture_output=True, text=True,
        check=False,
        env={**os.environ, "ETUDE_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=120,
    )  # fmt: skip


def test_a_data_pool_in_the_folder_of_a_stranger_imports_nothing_of_it(tmp_path: Path, cache: Path) -> None:
    folder = plant(tmp_path / "stranger")
    done = run(folder, POOL, 0, cache=cache)
    assert done.stdout.splitlines()[0] == "1 2 3 4", done.stderr
    assert not (folder / "canary").exists()


def test_ranks_in_the_folder_of_a_stranger_import_nothing_of_it(tmp_path: Path, cache: Path) -> None:
    import tomlkit

    folder = plant(tmp_path / "stranger")
    recipe = tiny(write_corpus(tmp_path / "corpus.jsonl"), {"train.steps": 2, "train.devices": 2})
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe))
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    done = run(folder, SCRIPT, "train", "recipe.toml", cache=cache)
    assert done.returncode == 0, done.stderr
    assert not (folder / "canary").exists()


def test_workers_of_a_killed_program_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(POOL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "program.py", "60"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stdout.readline() == "1 2 3 4\n"
    deadline = time.monotonic() + 30
    while len(children := psutil.Process(process.pid).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listening(psutil.Process(process.pid)) == []
    time.sleep(1.0)  # the workers have begun
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(children, timeout=20)
    for one in left:
        one.kill()
    assert not left, left


def test_a_program_that_a_rank_starts_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of a run of several ranks outlives them, and starts them all again."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", FOLDER: "/tmp/ranks", SOCKET: "7"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert not place.keys() & python_environment().keys()
