"""Packed files give the bytes that the libraries of their kinds packed, and refuse what would fill memory or time."""

import bz2
import gzip
import os
import random
from pathlib import Path

import pytest
import zstandard

from etude.data import unpack
from etude.data.unpack import Allowance, content_name, packing, read_chunks, read_head
from etude.errors import InputError
from tests.data.files import PACKS, write

each_pack = pytest.mark.parametrize("suffix", PACKS)


def read(path: Path) -> bytes:
    return b"".join(read_chunks(path))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@each_pack
def test_a_packed_file_is_known_by_its_bytes_and_read_in_small_pieces(suffix: str, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3_000_000) + b"words of a text " * 50_000
    path = write(tmp_path / "a.jsonl", PACKS[suffix](data))
    pieces = list(read_chunks(path))
    assert b"".join(pieces) == data and max(map(len, pieces)) <= 1 << 20
    assert packing(path.read_bytes()[:16], path) == suffix
    assert read_head(path, 1000) == (data[:1000], False) and read_head(path, len(data)) == (data, True)
    assert content_name(Path(f"Rows.JSONL{suffix.upper()}")) == "rows.jsonl"


@each_pack
def test_members_that_follow_one_another_are_read_and_masses_of_empty_ones_refused(
    suffix: str, tmp_path: Path
) -> None:
    pack, padding = PACKS[suffix], b"\0" * 8192 if suffix in (".gz", ".xz") else b""
    path = write(tmp_path / f"a{suffix}", pack(b"") * 999 + pack(b"one\n") + padding + pack(b"two\n") * 99)
    assert read(path) == b"one\n" + b"two\n" * 99
    write(path, pack(b"") * 200_000 + pack(b"one\n"))
    assert "most of it is empty or to be skipped" in refusal(path)
    for damaged in (pack(b"one\n") + b"rest of another file", pack(b"one " * 99)[:-3], b"no packed file"):
        assert f"not a whole {suffix} file" in refusal(write(path, damaged))


def test_zstandard_may_begin_with_a_frame_to_be_skipped(tmp_path: Path) -> None:
    frame, row = b"\x5d\x2a\x4d\x18\x05\0\0\0hello", zstandard.compress(b"row\n")
    path = write(tmp_path / "a.jsonl.zst", frame + row + frame)
    assert read(path) == b"row\n"
    write(path, frame * 200_000 + row)
    assert "most of it is empty or to be skipped" in refusal(path)
    write(path, frame[:4] + b"\xff" * 4 + row)
    assert "not a whole .zst file (it ends too early)" in refusal(path)


@each_pack
def test_a_bomb_is_refused_before_it_fills_memory(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "_BOMB_BYTES", 1 << 20)
    path = write(tmp_path / f"bomb{suffix}", PACKS[suffix](b" " * (64 << 20)))
    read_bytes = 0
    with pytest.raises(InputError, match="unpacks to over 200 times its size"):
        for piece in read_chunks(path):
            read_bytes += len(piece)
    assert read_bytes < 32 << 20


def test_an_allowance_counts_the_bytes_of_all_files_of_a_source(tmp_path: Path) -> None:
    allowance = Allowance(9000)
    for name, pack in (("a.gz", gzip.compress), ("b.bz2", bz2.compress)):
        path = write(tmp_path / name, pack(os.urandom(2000).hex().encode()))
        assert len(b"".join(read_chunks(path, allowance))) == 4000
    with pytest.raises(InputError, match="holds over 9,000 bytes, unpacked; raise max_bytes"):
        list(read_chunks(path, allowance))
