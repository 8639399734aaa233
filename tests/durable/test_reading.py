"""Files of strangers are plain, small enough and well-formed, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError, MissingError
from tests.durable.odd_files import not_plain


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
    (b"[" * 200_000, "nested too deeply"), (b"9" * 10_000, "not valid JSON: a number is too long"), (b"{", "not valid JSON"), (b"\xff\xfe{\x00", "not UTF-8 text"),
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


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a plain file that cannot be read")
@pytest.mark.parametrize("read", [durable.sha256_file, durable.content_key])
def test_a_disk_that_fails_under_a_file_is_named(read: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="/proc/self/mem cannot be read: Input/output error"):
        read(Path("/proc/self/mem"))
