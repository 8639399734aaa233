"""Programs that etude starts run nothing of the folder they stand in, and end when it does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from etude.records.environment import describe_environment
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


def test_git_runs_no_program_that_a_foreign_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    folder, canary = tmp_path / "stranger", tmp_path / "canary"
    folder.mkdir()
    git("init", "-q")
    (folder / "a.txt").write_text("one\n")
    (folder / ".gitattributes").write_text("*.txt filter=evil diff=evil\n")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.chdir(folder)
    assert describe_environment()["git"] == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    (folder / "evil.sh").write_text(f"#!/bin/sh\necho ran >> {canary}\ncat\n")
    (folder / "evil.sh").chmod(0o755)
    program = str(folder / "evil.sh")
    filters = (
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.external",
    )
    commit = git("rev-parse", "HEAD").strip()
    for key in ("core.fsmonitor", *filters, "core.pager", "core.sshCommand", "gpg.program", "core.editor"):
        git("config", key, program)
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout", "pre-commit"):
        (folder / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\necho ran >> {canary}\n")
        (folder / ".git" / "hooks" / hook).chmod(0o755)
    (folder / "a.txt").write_text("two\n")
    before = {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")}
    assert describe_environment()["git"] == {"commit": commit, "dirty": True}
    assert not canary.exists()
    assert {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")} == before


ENDLESS = (
    "HEAD",
    "refs/heads/main",
    "packed-refs",
    "config",
    "index",
    "objects/info/alternates",
    "commondir",
)


@pytest.mark.parametrize(
    ("place", "kind"), [("index", "pipe"), *((place, "device") for place in (*ENDLESS, "../.gitattributes"))]
)
def test_git_of_a_foreign_folder_reads_nothing_without_end_and_leaves_nothing(
    place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, temporary = tmp_path / "stranger", tmp_path / "tmp"
    for made in (folder, temporary):
        made.mkdir()
    (folder / "a.txt").write_text("one")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True)
    file = folder / ".git" / place
    file.unlink(missing_ok=True)
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    program = """
import json, pathlib, resource
from etude.records.environment import describe_environment
git = describe_environment()["git"]
# Of this process not ru_maxrss, which begins with what its parent had.
(own,) = [line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(json.dumps([git, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, int(own)]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, check=True
    )
    git, *kilobytes = json.loads(done.stdout)
    assert git is None or git["dirty"] in (None, True, False)
    assert place != "index" or git["dirty"] is None
    assert max(kilobytes) < 1 << 20
    assert list(temporary.iterdir()) == []


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
