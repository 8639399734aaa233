"""The conditions of a run are those of this machine, and git tells them without running anything."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from etude.records.environment import CONDITIONS, ENVIRONMENT, describe_environment, find_changes
from etude.records.shape import fit


def test_the_environment_is_that_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("API_TOKEN", "hf_secret")
    found = describe_environment()
    assert found["git"] is None and found["pid"] == os.getpid()
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "tokenizers")}
    assert versions.items() <= found["versions"].items()
    assert found["versions"]["python"] == platform.python_version()
    machine = found["machine"]
    assert 0 < machine["disk_free_bytes"] <= machine["disk_bytes"]
    assert (
        describe_environment(Path("/proc"))["machine"]["disk_bytes"] == 0
    )  # of that folder, not of this one
    if sys.platform == "linux":
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        assert machine["memory_bytes"] == int(memory["MemTotal"].split()[0]) * 1024
        assert machine["cores"] == int(subprocess.check_output(["nproc", "--all"])) or machine["cores"] > 0
    assert "hf_secret" not in json.dumps(found)  # nothing of the environment's variables is kept
    assert fit(json.loads(json.dumps(found)), ENVIRONMENT) == found


def test_the_command_is_kept_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for program, typed in (("/bin/etude", ["etude"]), ("/lib/etude/__main__.py", ["python", "-m", "etude"])):
        monkeypatch.setattr("sys.argv", [program, "train", "a b.toml"])
        assert describe_environment()["command"] == [*typed, "train", "a b.toml"]


def test_what_may_change_bits_is_named_with_both_values() -> None:
    gpu = {"name": "H100", "memory_bytes": 1}
    before = {
        "versions": {"torch": "2.10"}, "device": "cpu", "devices": 1, "precision": "fp32", "threads": 2,
        "machine": {"cpu": "A", "cores": 2, "gpus": [gpu]}, "host": "a", "command": ["etude", "train"],
    }  # fmt: skip
    assert find_changes(before, before | {"host": "b", "command": ["etude", "resume"]}) == []
    after = before | {
        "versions": {"torch": "2.13", "numpy": "2.0"}, "threads": 4, "precision": "bf16",
        "machine": {"cpu": "A", "cores": 4, "gpus": []},
    }  # fmt: skip
    assert find_changes(before, after) == [
        "torch was 2.10, is 2.13", "numpy was None, is 2.0", "cores was 2, is 4", f"gpus was {[gpu]}, is []",
        "precision was fp32, is bf16", "threads was 2, is 4",
    ]  # fmt: skip


def test_a_run_needs_the_conditions_that_it_goes_by() -> None:
    assert fit({"data_fingerprint": "f", "micro_batch_size": 8}, CONDITIONS)
    for spoilt in ({"micro_batch_size": 8}, {"data_fingerprint": "f", "micro_batch_size": 0}):
        with pytest.raises(ValueError, match=r"it has no data_fingerprint|0 is no number from 1 on"):
            fit(spoilt, CONDITIONS)


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
