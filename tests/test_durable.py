import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError, MissingError, StorageError


def points(path: Path) -> int:
    with durable.faults(durable.FaultPlan()) as plan:
        durable.write_file(path, [b"new", b"er"])
    return len(plan.calls)


def test_write_file_returns_size_and_hash_of_what_is_there(tmp_path: Path) -> None:
    written = durable.write_file(tmp_path / "a", iter([b"one", b"two"]))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert written == durable.Written(6, durable.sha256_file(tmp_path / "a"))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("once", [True, False])
def test_a_fault_at_any_call_leaves_the_old_or_the_new_file(tmp_path: Path, error: int, once: bool) -> None:
    path = tmp_path / "a"
    for at in range(points(path)):
        path.write_bytes(b"old")
        with (
            durable.faults(durable.FaultPlan(at, error, once)),
            pytest.raises(StorageError, match=r"cannot write .*a"),
        ):
            durable.write_file(path, [b"new", b"er"])
        assert path.read_bytes() in (b"old", b"newer")
        assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_kill_at_any_call_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    count = points(path)
    for at in range(count):
        path.write_bytes(b"old")
        if (child := os.fork()) == 0:
            with durable.faults(durable.FaultPlan(at)):
                durable.write_file(path, [b"new", b"er"])
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        assert path.read_bytes() in (b"old", b"newer")


def test_a_failed_append_is_cut_off_again(tmp_path: Path) -> None:
    appender = durable.Appender(tmp_path / "a")
    appender.append(b"one\n")
    with (
        durable.faults(durable.FaultPlan(0, errno.ENOSPC)),
        pytest.raises(StorageError, match="free some space"),
    ):
        appender.append(b"two\n")
    appender.append(b"three\n")
    assert (tmp_path / "a").read_bytes() == b"one\nthree\n"


def test_a_file_that_the_system_lets_grow_no_further_is_a_storage_error_and_keeps_what_it_held(
    tmp_path: Path,
) -> None:
    file = durable.Appender(tmp_path / "a")
    file.append(b"whole\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(StorageError, match="larger than this system allows"):
            file.append(b"too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"whole\n"


def test_a_folder_is_known_as_removed_before_its_content_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("manifest.json", "data"):
        (folder / name).write_bytes(b"x")
    with durable.faults(durable.FaultPlan(2, errno.EIO)), pytest.raises(StorageError):
        durable.remove_folder(folder, first="manifest.json")
    assert [file.name for file in folder.iterdir()] == ["data"]


def not_plain(kind: str, folder: Path) -> Path:
    path = folder / "odd"
    match kind:
        case "link":
            (folder / "target").write_bytes(b"export A=1\nlast line")
            path.symlink_to(folder / "target")
        case "second name":
            (folder / "target").write_bytes(b"export A=1\nlast line")
            path.hardlink_to(folder / "target")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder", "device"])
def test_nothing_is_appended_to_what_is_no_plain_file_of_its_own(tmp_path: Path, kind: str) -> None:
    path = not_plain(kind, tmp_path)
    with pytest.raises(InputError, match="nothing is written to it"):
        durable.Appender(path)
    if (tmp_path / "target").exists():
        assert (tmp_path / "target").read_bytes() == b"export A=1\nlast line"


def test_a_written_file_takes_the_place_of_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    path = not_plain("link", tmp_path)
    durable.write_file(path, b"new")
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    assert (tmp_path / "target").read_bytes() == b"export A=1\nlast line"


@pytest.mark.parametrize("size", [0, 1, 5, 3 << 20])
def test_only_a_last_line_without_its_end_is_cut_off(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\ntwo\n" + b"x" * size)
    file = durable.Appender(path)
    file.cut_torn_line()
    file.append(b"three\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(("kind", "says"), [
    ("pipe", "is a pipe"), ("folder", "is a folder"), ("device", "is a device"),
])  # fmt: skip
def test_reading_refuses_what_is_no_plain_file_at_once(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        durable.read_bytes(not_plain(kind, tmp_path), most_bytes=100)


def test_reading_follows_a_link_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = not_plain("link", tmp_path)
    assert durable.read_text(path, most_bytes=100) == "export A=1\nlast line"
    with pytest.raises(InputError, match="is a link"):
        durable.read_text(path, most_bytes=100, follow=False)


@pytest.mark.parametrize(("content", "says"), [
    (b"[" * 200_000, "nested too deeply"), (b"{", "not valid JSON"), (b"\xff\xfe{\x00", "not UTF-8 text"),
    (b"[1]", "no JSON object"), (b"", "not valid JSON"), (b"1" * 5000, "not valid JSON"),
    (b" " * 3000, "larger than"),
])  # fmt: skip
def test_json_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    most = 2000 if says == "larger than" else durable.LARGEST_JSON_BYTES
    with pytest.raises(InputError, match=says) as caught:
        durable.read_json_object(path, most_bytes=most)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["missing", "a" * 300, "a\0b", "a/" * 3000])
def test_a_name_that_leads_to_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError) as caught:
        durable.read_bytes(tmp_path / name, most_bytes=10)
    assert isinstance(caught.value, MissingError) == (name == "missing") and len(str(caught.value)) < 300


def test_a_temporary_folder_goes_with_its_process_or_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = """
import os, signal, sys, tempfile
from etude.durable import temporary_folder
tempfile.tempdir = sys.argv[1]
with temporary_folder("etude-x-") as folder:
    (folder / "a").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env=environment)
    (left,) = tmp_path.iterdir()
    (tmp_path / "etude-xy").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "etude-x-link").symlink_to(elsewhere)
    with durable.temporary_folder("etude-x-") as first:
        assert not left.exists() and (elsewhere.exists() and (tmp_path / "etude-xy").exists())
        with durable.temporary_folder("etude-x-") as second:
            assert first.is_dir() and second.is_dir() and first != second
    assert not first.exists() and not second.exists()
