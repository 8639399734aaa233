"""Bytes of logs in any encoding."""

import gzip
import os
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.watch.logs.content import open_log, read_text

TEXT = "step,loss\r\n10,3.0 \u00fc\n"


def read(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with open_log(path) as file:
        return read_text(path, file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_is_the_same_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    assert read(tmp_path / "a", TEXT.encode(encoding)) == TEXT
    assert read(tmp_path / "a", gzip.compress(TEXT.encode(encoding))) == TEXT


def test_single_bytes_that_are_no_text_cost_no_line(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b"step 1 loss 2 \xff\n") == "step 1 loss 2 \ufffd\n"


def test_parts_that_gzip_packed_one_after_the_other_are_one_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a", gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n")) == "a,b\n1,2\n"


def test_a_small_file_that_unpacks_to_very_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.watch.logs.content.MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match="unpacked"):
        read(tmp_path / "a", gzip.compress(bytes(1 << 24)))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe"):
        open_log(tmp_path / "pipe")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file of Linux that no read takes")
def test_a_file_that_cannot_be_read_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="mem cannot be read: Input/output error; give a log"):
        open_log(Path("/proc/self/mem"))
