"""Every kind of file that can be read, and one clear line for each that cannot."""

import gzip
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etude.data import sources, unpack
from etude.data.listing import list_files
from etude.data.sources import describe, read_documents, source_key
from etude.errors import InputError
from etude.recipe.schema import Source


def texts(path: Path, **settings: Any) -> list[str]:
    return [document.text for document in read_documents(Source(path=str(path), **settings))]


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        texts(path, **settings)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800
    return message


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
    assert describe(Source(path=str(file)), 4535) == "4,535 rows of JSONL, field text"


def test_packed_frames_one_after_another_are_read_to_the_end(tmp_path: Path) -> None:
    for suffix, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        file = tmp_path / f"a.txt{suffix}"
        file.write_bytes(pack(b"one ") + pack(b"two"))
        assert texts(file) == ["one two"]


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


def test_hidden_files_and_links_that_lead_outside_are_passed_over(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.py", tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)
    (folder / "sub").mkdir()
    outside.write_text("outside")
    (folder / ".git" / "config.py").write_text("hidden")
    (folder / ".hidden.py").write_text("hidden")
    (folder / "link.py").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    (folder / "sub" / "in.py").write_text("in")
    (folder / "inner.py").symlink_to(folder / "sub" / "in.py")
    os.mkfifo(folder / "pipe.py")
    for glob in ("**/*", "**/*.py", "*/*.py", "../*.py"):
        source = Source(path=str(folder), glob=glob)
        try:
            names = [path.name for path in list_files(source)]
        except InputError:
            names = []
        assert set(names) <= {"in.py", "inner.py"}, glob


def test_the_standard_library_comes_without_tests_installed_packages_and_encodings() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path.relative_to(root) for path in list_files(Source(source="python-stdlib"))]
    assert files == sorted(files, key=lambda path: path.as_posix()) and len(files) > 300
    assert Path("asyncio/tasks.py") in files and Path("unittest/mock.py") in files
    parts = {part for path in files for part in path.parts}
    assert not parts & {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "__pycache__",
        "encodings",
    }
    documents = read_documents(Source(source="python-stdlib"))
    asyncio = {
        next(documents).group for path in files if path.parts[0] == "asyncio" or path < Path("asyncio")
    }
    assert str(root / "asyncio") in asyncio


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


def test_files_that_are_no_files_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.txt")
    os.mkfifo(tmp_path / "pipe")
    assert "plain file" in refusal(tmp_path / "pipe")
    assert "plain file" in refusal(Path("/dev/zero"))
    assert "no file that matches" in refusal(tmp_path, glob="*.py")
    assert "no pattern" in refusal(tmp_path, glob="/etc/*")
    assert "no pattern" in refusal(tmp_path, glob="**.py")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


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


def test_what_etude_writes_into_the_folder_of_a_source_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    source = Source(path=str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    before = source_key(source), describe(source, 1)
    for folder in ("runs/small-0a1b2c/checkpoints", "cache/prepared"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "tokenizer.json").write_text("{}")
    (tmp_path / "runs/small-0a1b2c/run.json").write_text("{}")
    assert list_files(source) == [tmp_path / "a.py"] and source_key(source) == before[0]
    assert describe(source, 1) == before[1] + ", without 2 of runs or of the cache of etude (cache)"
    # A folder that somebody names is meant, and one that looks like a run in part is data.
    (tmp_path / "runs/small-0a1b2c/checkpoints/b.py").write_text("b = 1")
    assert len(list_files(Source(path=str(tmp_path / "runs/small-0a1b2c")))) == 3
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    assert len(list_files(source)) == 2


def test_a_source_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache/prepared").mkdir(parents=True)
    (tmp_path / "cache/prepared/a.py").write_text("a = 1")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    for path in ("cache", "cache/prepared"):
        assert "is in $ETUDE_CACHE, which etude fills" in refusal(tmp_path / path)
