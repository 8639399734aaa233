"""Every kind of file that can be read, and one clear line for each that cannot."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etude.data import sources, unpack
from etude.data.layout import look_through
from etude.data.sources import read_documents, source_key
from etude.recipe.data import Source
from tests.data.files import refusal


def texts(path: Path, **settings: Any) -> list[str]:
    return [document.text for document in read_documents(Source(path=str(path), **settings))]


def test_a_text_file_is_one_document_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffé\r\n\tb\r\n".encode())
    assert texts(file)[0].encode() == file.read_bytes()


@pytest.mark.parametrize(
    "pack", [lambda data: data, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"]
)
def test_jsonl_is_a_document_a_line_whatever_it_is_packed_in(tmp_path: Path, pack) -> None:
    lines = [{"text": "one\r\n"}, {"text": "zwei é"}, {"text": " "}]
    suffix = {gzip.compress: ".gz", zstandard.compress: ".zst"}.get(pack, "")
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(pack("\n".join(json.dumps(line) for line in lines).encode() + b"\n\n"))
    assert texts(file) == [line["text"] for line in lines]
    assert look_through(Source(path=str(file))).describe(4535) == "4,535 rows of JSONL, field text"


def test_long_lines_are_put_together_from_pieces(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = ["x" * 3_000_000, "y", "z" * 1_500_000]
    file.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    assert texts(file) == lines


def test_groups_are_a_field_or_the_top_folder(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "repo": "r"}\n{"text": "b", "repo": null}\n{"text": "c", "repo": "r"}\n')
    groups = [document.group for document in read_documents(Source(path=str(file), group_by="repo"))]
    assert groups == ['repo="r"', None, 'repo="r"']
    assert [document.group for document in read_documents(Source(path=str(file)))] == [None] * 3

    folder = tmp_path / "folder"
    for name in ("one/a.py", "one/deep/b.py", "two/a.py", "top.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("pass")
    found = [document.group for document in read_documents(Source(path=str(folder), glob="**/*.py"))]
    assert found == [str(folder / part) for part in ("one", "one", "top.py", "two")]


def test_files_that_all_lie_in_one_folder_are_grouped_within_that(tmp_path: Path) -> None:
    for name in ("repo/src/a.py", "repo/src/b.py", "repo/src/pkg/c.py", "repo/src/pkg/d.py", "rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "row"}' if name.endswith("l") else "pass")
    found = [document.group for document in read_documents(Source(path=str(tmp_path)))]
    assert found == [*(str(tmp_path / "repo/src" / part) for part in ("a.py", "b.py", "pkg", "pkg")), None]


def test_the_key_changes_with_size_time_and_settings_only(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("text")
    key = source_key(Source(path=str(file)))
    assert source_key(Source(path=str(file))) == key
    assert source_key(Source(path=str(file), field="other")) != key
    os.utime(file, ns=(1, 1))
    assert source_key(Source(path=str(file))) != key


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \r\n\t ", "empty"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b'{"text": " "}\n', "empty"),
        ("a.txt", b"ab\0c", "binary: byte 2"),
        ("a.txt", b"ab\xffc", "byte 2 is 0xff"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "a.jsonl:2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', "a.jsonl:3 is not valid JSON"),
        ("a.jsonl", b'{"text": NaN}', "a.jsonl:1 has NaN as field 'text'"),
        (
            "a.jsonl",
            b'{"text": "a", "x": ' + b"1" * 5000 + b"}",
            "a.jsonl:1 holds a whole number of too many digits",
        ),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1 nests"),
        ("a.jsonl", b'["a"]', "a.jsonl:1 is a list"),
        ("a.jsonl", b'{"code": "a", "n": 1, "doc": "b"}', "has no field 'text'"),
        ("a.jsonl", b'{"code": "a", "n": 1, "doc": "b"}', "'code', 'doc'"),
        ("a.jsonl", b'{"text": 3}', "has a number as field 'text'"),
        ("a.jsonl", b'{"text": "\\ud800"}', "surrogate"),
        ("a.txt.gz", b"no gzip", "not a whole .gz"),
        ("a.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], "not a whole .gz"),
        ("a.txt.zst", b"no zstandard", "not a whole .zst"),
        ("a.txt.zst", zstandard.compress(bytes(range(256)) * 4)[:-9], "not a whole .zst"),
    ],
)
def test_bad_content_is_refused_in_one_line_that_names_the_place(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert expected in message and name in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.txt").chmod(0)
    assert "cannot be read: Permission denied" in refusal(tmp_path / "a.txt")


def test_a_missing_group_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "name": "b"}')
    assert "no field 'repo'" in refusal(tmp_path / "a.jsonl", group_by="repo")
    (tmp_path / "a.txt").write_text("text")
    assert "a.txt has no rows, which group_by = 'repo' needs" in refusal(tmp_path / "a.txt", group_by="repo")


def test_a_bomb_and_an_endless_line_are_refused_before_they_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "_BOMB_BYTES", 1 << 20)
    bomb = b" " * (64 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bomb))
    (tmp_path / "bomb.zst").write_bytes(zstandard.compress(bomb))
    (tmp_path / "line.jsonl").write_bytes(b'{"text": "' + b"x" * (3 << 20))
    assert "times its size" in refusal(tmp_path / "bomb.gz")
    assert "times its size" in refusal(tmp_path / "bomb.zst")
    assert "line.jsonl:1 is a row of over 1,048,576 bytes" in refusal(
        tmp_path / "line.jsonl", max_row_bytes=1 << 20
    )


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_text_too_long_to_be_held_is_refused_before_all_of_it_is_read(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_MAX_DOCUMENT_BYTES", 3 << 20)
    data, path = b"text of a few words\n" * 500_000, tmp_path / f"a.txt{suffix}"
    read: list[int] = []
    chunks = sources.read_chunks
    monkeypatch.setattr(
        sources, "read_chunks", lambda *given: (read.append(len(each)) or each for each in chunks(*given))
    )
    path.write_bytes(gzip.compress(data) if suffix else data)
    assert f"a.txt{suffix} is longer than 3 MiB, and would be one document; split it" in refusal(path)
    assert sum(read) <= 4 << 20
    path.write_bytes(gzip.compress(data[: 3 << 20]) if suffix else data[: 3 << 20])
    assert len(texts(path)[0]) == 3 << 20
