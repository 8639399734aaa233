"""Rows are read from whatever they are usually published in, as Python's own json and csv read them."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etude.data.rows import find_kind, place_of, read_rows
from etude.data.sources import describe, list_rows_as_texts, read_documents
from etude.errors import InputError
from etude.recipe.schema import Source

ALPACA = [{"instruction": f"Add {n} and 1", "input": "", "output": f"{n + 1}"} for n in range(12)]
PACKS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_csv(rows: list[dict[str, Any]], **dialect: Any) -> str:
    file = io.StringIO()
    table = csv.DictWriter(file, list(rows[0]), **dialect)
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def answers(path: Path, **settings: Any) -> list[str]:
    documents = read_documents(Source(path=str(path), **settings))
    return [document.messages[-1]["content"] for document in documents if document.messages]


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        list(read_documents(Source(path=str(path), **settings)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", PACKS)
@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", json.dumps(ALPACA), "a JSON array"),
        ("a.json", "\ufeff\n " + json.dumps(ALPACA, indent=2) + "\n", "a JSON array"),
        ("a.jsonl", json.dumps(ALPACA, indent=1), "a JSON array"),
        ("a", json.dumps(ALPACA), "a JSON array"),
        ("a.json", "\n".join(map(json.dumps, ALPACA)), "JSONL"),
        ("a.txt", "\r\n".join(map(json.dumps, ALPACA)), "JSONL"),
        ("a.ndjson", "\n".join(map(json.dumps, ALPACA)), "JSONL"),
        ("a.csv", as_csv(ALPACA), "CSV"),
        ("a.csv", "\ufeff" + as_csv(ALPACA, delimiter=";", quoting=csv.QUOTE_ALL), "CSV"),
        ("a.tsv", as_csv(ALPACA, delimiter="\t"), "CSV"),
    ],
)
def test_rows_are_known_by_content_whatever_they_are_called_or_packed_in(
    name: str, content: str, kind: str, suffix: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"{name}{suffix}", PACKS[suffix](content.encode()))
    assert answers(path) == [row["output"] for row in ALPACA]
    assert describe(Source(path=str(path)), 12) == f"12 rows of {kind}, alpaca (instruction, input, output)"


@pytest.mark.parametrize("suffix", list(PACKS)[1:])
def test_members_that_follow_one_another_are_read_and_masses_of_empty_ones_refused(
    suffix: str, tmp_path: Path
) -> None:
    pack, row = PACKS[suffix], json.dumps(ALPACA[0]).encode() + b"\n"
    padding = b"\0" * 8192 if suffix in (".gz", ".xz") else b""
    path = write(tmp_path / f"a.jsonl{suffix}", pack(b"") * 999 + pack(row) + padding + pack(row) * 99)
    assert answers(path) == ["1"] * 100
    write(path, pack(b"") * 200_000 + pack(row))
    assert "most of it is empty or to be skipped" in refusal(path)
    write(path, pack(row) + b"rest of another file")
    assert f"not a whole {suffix} file" in refusal(path)


def test_zstandard_may_begin_with_a_frame_to_be_skipped(tmp_path: Path) -> None:
    frame, row = b"\x5d\x2a\x4d\x18\x05\0\0\0hello", json.dumps(ALPACA[0]).encode() + b"\n"
    path = write(tmp_path / "a.jsonl.zst", frame + zstandard.compress(row) + frame)
    assert answers(path) == ["1"]
    write(path, frame * 200_000 + zstandard.compress(row))
    assert "most of it is empty or to be skipped" in refusal(path)
    write(path, frame[:4] + b"\xff" * 4 + zstandard.compress(row))
    assert "not a whole .zst file (it ends too early)" in refusal(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_packed_file_is_known_by_its_bytes(pack: Any, tmp_path: Path) -> None:
    assert len(answers(write(tmp_path / "a.jsonl", pack("\n".join(map(json.dumps, ALPACA)).encode())))) == 12


def test_rows_in_an_array_are_those_of_json_load_in_pieces_of_any_size() -> None:
    draw = random.Random(0)
    strings = ["", "x", 'quote " and \\ and \n', "é\u2028", "\U0001f600" * 9, "]},{[", "y" * 200]
    for size in (1, 2, 7, 64, 4096):
        rows = [
            {"a": draw.choice(strings), "n": draw.choice([1, -2.5e-7, None, True, [], {"b": [{}]}]), "z": "é"}
            for _ in range(40)
        ]
        for text in (
            json.dumps(rows),
            json.dumps(rows, indent=3, ensure_ascii=False),
            f" {json.dumps(rows)}\n\t",
        ):
            data = text.encode()
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            read = list(read_rows(pieces, "array", "a.json", most_bytes=1 << 20))
            assert [row for _, row in read] == json.loads(text)
            assert [place_of("a.json", number) for number, _ in read][-1] == "a.json row 40"


def test_cells_are_those_of_the_csv_module_and_rows_keep_their_lines(tmp_path: Path) -> None:
    rows = [
        {"prompt": 'a "b"\r\nc\n\nd', "completion": "1,2"},
        {"prompt": "", "completion": "\t"},
        {"prompt": "p", "completion": "q"},
    ]
    text = as_csv(rows)
    for size in (1, 5, 1000):
        pieces = [text.encode()[at : at + size] for at in range(0, len(text), size)]
        read = list(read_rows(pieces, "table", "a.csv", most_bytes=1 << 20))
        assert [row for _, row in read] == rows == list(csv.DictReader(io.StringIO(text, newline="")))
        assert [number for number, _ in read] == [2, 6, 7]
    broken = write(tmp_path / "a.csv", text + 'x,"y"z\r\n')
    assert "a.csv:8 is not valid CSV" in refusal(broken)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", json.dumps(ALPACA)[:-1], "not valid JSON in row 12, line 1 column .*: it ends within the array"),
        ("a.json", json.dumps(ALPACA, indent=0)[:200], "not valid JSON in row 4, line 18 column 1: Unterminated"),
        ("a.json", '[\n{"a": 1}\n{"a": 2}]', "in row 1, line 3 column 1: a comma or ] should follow"),
        ("a.json", '[{"a": 1},]', "in row 2, line 1 column 11: Expecting value"),
        ("a.json", '[{"a": 1}] [{"a": 2}]', "more follows after the array"),
        ("a.json", '[{"a": 1}, 3]', "a.json row 2 is a number"),
        ("a.json", '[{"text": "a"}, {"text": "b", "text": "c"}]', "a.json row 2 has the field 'text' twice"),
        ("a.json", '[{"text": "\\ud800"}]', "a.json row 1 holds half of a surrogate pair"),
        ("a.json", '[{"text": ' + "[" * 100_000, "a.json row 1 nests"),
        ("a.json", '[{"text": ' + "1" * 5000 + "}]", "a.json row 1 holds a whole number of too many digits"),
        ("a.json", "[]", "empty"), ("a.json", "", "holds nothing, and no rows"),
        ("a.json", '{"data": [{"text": "a"}]}', "one JSON object with the fields 'data', and no rows"),
        ("a.json", '{"train": [],\n"test": []}', "one JSON object with the fields 'train', 'test'"),
        ("a.json", "true", "holds one text, and no rows"),
        ("a.jsonl", '{"text": "a"}\n{"text": "a", "text": "b"}', "a.jsonl:2 has the field 'text' twice"),
        ("a.jsonl", '{"text": "a"}\r{"text": "b"}\r', "a.jsonl:1 .* lines end with CR alone"),
        ("a.jsonl", '{"text": "a\0"}', "a.jsonl:1 is not valid JSON"), ("a.csv", "", "empty"),
        ("a.csv", "text,label\n", "empty"),
        ("a.csv", "text,label\na,b\nc\n", "a.csv:3 has 1 fields, and the header has 2"),
        ("a.csv", "text,label\n\na,b,c\n", "a.csv:3 has 3 fields"),
        ("a.csv", "text,text\na,b\n", "the header has 'text' twice"),
        ("a.csv", 'text\n"a\nb\n', "a.csv:2 is not valid CSV: unexpected end of data"),
        ("a.csv", b"text\na\xff\n", "a.csv:2 is not UTF-8 text: byte 1 of the line is FF"),
        ("a.csv", "code,label\na,b\n", "has no field 'text'.*'code', 'label'"),
        ("a.json", json.dumps([{"a": "é"}], ensure_ascii=False).encode("latin-1"), "the byte E9 in or after row 1"),
        ("a.parquet", b"PAR1" + bytes(99), "a Parquet file"),
        ("a.jsonl", b"PAR1" + bytes(99), "a Parquet file"),
        ("a.arrow", b"ARROW1" + bytes(99), "an Arrow file"),
        ("a.xlsx", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "an Excel or Office file"),
        ("a.zip", b"PK\x03\x04" + bytes(26) + b"rows.jsonl", "a ZIP archive"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_row_or_line(
    name: str, content: str | bytes, says: str, tmp_path: Path
) -> None:
    assert re.search(says, message := refusal(write(tmp_path / name, content))), message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_other_encodings_are_named_or_left_out(name: str, encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, "\n".join(map(json.dumps, ALPACA)).encode(encoding))
    shows = {"utf-16": "begins with FF FE", "utf-32": "begins with FF FE 00 00"}.get(
        encoding, "are NUL, as in UTF-16"
    )
    assert f"{name} is not UTF-8 text: " in refusal(path) and shows in refusal(path)
    write(tmp_path / "b.jsonl", json.dumps(ALPACA[0]))
    left = list(read_documents(Source(path=str(tmp_path)), undecodable=True))
    assert [document.is_undecodable for document in left] == [True, False]


def test_json_and_csv_beside_code_are_texts_unless_their_rows_fit_a_format(tmp_path: Path) -> None:
    write(tmp_path / "a.py", "print(1)")
    configs = {"package.json": '{"name": "a"}', "list.json": '[{"id": 1}]', "table.csv": "id,n\n1,2\n"}
    for name, content in configs.items():
        write(tmp_path / name, content)
    documents = {document.name: document for document in read_documents(Source(path=str(tmp_path)))}
    assert {Path(name).name: document.text for name, document in documents.items()} == configs | {
        "a.py": "print(1)"
    }
    assert describe(Source(path=str(tmp_path), glob="a*"), 1) == "1 document, from 1 file (a*)"
    assert describe(Source(path=str(tmp_path)), 4) == "4 documents, from 4 files (**/*)"
    write(tmp_path / "train.json", json.dumps(ALPACA))
    assert len(list(read_documents(Source(path=str(tmp_path))))) == 4 + 12
    said = describe(Source(path=str(tmp_path)), 16)
    assert (
        said
        == "16 documents, from 5 files (**/*); of 1 of them rows of a JSON array, alpaca (instruction, input, output)"
    )


def test_format_text_takes_a_file_of_json_as_a_text_unless_its_rows_hold_the_field(tmp_path: Path) -> None:
    for content in ('{"name": "a"}', '[{"id": 1}]'):
        path = write(tmp_path / "a.json", content)
        assert [document.text for document in read_documents(Source(path=str(path), format="text"))] == [
            content
        ]
        refusal(path)
    path = write(tmp_path / "a.json", '[{"text": "a"}, {"text": "b"}]')
    assert [document.text for document in read_documents(Source(path=str(path), format="text"))] == ["a", "b"]


def test_a_file_of_rows_among_code_is_a_text_unless_it_holds_the_field(tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "c.rs", "d.md", "e.js", "f.go", "g.c"):
        write(tmp_path / name, "code")
    fixtures = {
        "fix.json": '[{"prompt": "q", "completion": "a"}]', "log.jsonl": '{"id": 1}',
        "broken.jsonl": '{"id": ', "table.csv": "prompt,completion\nq,a\n", "bad.ndjson": "[1]",
    }  # fmt: skip
    for name, content in fixtures.items():
        write(tmp_path / name, content)
    for settings in ({}, {"format": "text"}):
        source = Source(path=str(tmp_path), **settings)
        documents = list(read_documents(source))
        assert sorted(each.text for each in documents) == sorted([*fixtures.values(), *["code"] * 7])
        assert all(each.messages is None and each.line == 0 for each in documents)
        rows = ["broken.jsonl", "fix.json", "log.jsonl", "table.csv"]
        assert {path.name for path in list_rows_as_texts(source)} >= set(rows)
    write(tmp_path / "rows.jsonl", '{"text": "one"}\n{"text": "two"}')
    assert {"one", "two"} <= {each.text for each in read_documents(Source(path=str(tmp_path)))}
    write(tmp_path / "rows.jsonl", '{"text": "one"}\n{"id": 2}')
    assert refusal(tmp_path).endswith("; choose other files with glob")


def test_a_folder_of_data_stays_rows(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, ALPACA)))
    for name in ("README.md", "LICENSE", "CITATION.cff", "load.py"):  # as datasets are published
        write(tmp_path / name, "about")
    documents = list(read_documents(Source(path=str(tmp_path))))
    assert sum(document.messages is not None for document in documents) == 12
    write(tmp_path / "train.jsonl", '{"id": 1}')
    says = 'choose other files with glob, or set format = "text" to read this one whole'
    assert refusal(tmp_path).endswith(says)
    assert len(list(read_documents(Source(path=str(tmp_path), format="text")))) == 5
    for settings in ({}, {"format": "text"}):
        message = refusal(tmp_path, glob="*.jsonl", **settings)
        assert "train.jsonl:1 has no field 'text', which must be a string; set field to one of" in message


def test_settings_about_rows_need_rows_in_every_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}')
    write(tmp_path / "README.md", "about")
    for settings in ({"label": "label"}, {"format": "alpaca"}, {"group_by": "label"}, {"pair": "label"}):
        assert "README.md has no rows, which" in refusal(tmp_path, **settings)


def test_a_source_larger_than_it_may_be_is_refused_with_the_key_that_allows_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(os.urandom(6000).hex().encode() + b"\n", 1))
    assert "holds over 9,000 bytes, unpacked; raise max_bytes" in refusal(path, max_bytes=9000)
    for name, content in (
        ("a.json", json.dumps([{"text": "x" * 5000}])),
        ("a.csv", 'text\n"' + "x\n" * 3000),
        ("a.jsonl", json.dumps({"text": "x" * 5000})),
    ):
        assert "raise max_row_bytes" in refusal(write(tmp_path / name, content), max_row_bytes=4000)


def test_a_json_file_is_an_object_unless_it_is_lines_of_objects_or_an_array_of_them() -> None:
    for text, kind in (
        ('{"a": 1}', "object"), ('{"a": 1}\n', "object"), ('{"a": 1}\n{"a": 2}', "lines"),
        ('{}\n\n{"a"', "lines"), ("{\n}\n{\n}", "object"), ("[1, 2]", "object"), ("[", "array"),
        (" [\n {", "array"), ("// x", "object"),
    ):  # fmt: skip
        assert find_kind("a.json", text.encode(), is_whole=True) == kind, text
    assert find_kind("a.py", b"[]", is_whole=True) == find_kind("a.md", b"{}\n[]", is_whole=True) == "text"
