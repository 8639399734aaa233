"""Rows are read from whatever they are usually published in, as Python's own json and csv read them."""

import csv
import gzip
import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from etude.data.layout import look_through
from etude.data.rows import find_kind, place_of, read_rows
from etude.data.sources import read_documents
from etude.recipe.data import Source
from tests.data.files import ALPACA, PACKS, refusal, write


def as_csv(rows: list[dict[str, Any]], **dialect: Any) -> str:
    file = io.StringIO()
    table = csv.DictWriter(file, list(rows[0]), **dialect)
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def answers(path: Path, **settings: Any) -> list[str]:
    documents = read_documents(Source(path=str(path), **settings))
    return [document.messages[-1]["content"] for document in documents if document.messages]


@pytest.mark.parametrize("suffix", ["", *PACKS])
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
    path = write(tmp_path / f"{name}{suffix}", PACKS.get(suffix, bytes)(content.encode()))
    assert answers(path) == [row["output"] for row in ALPACA]
    assert (
        look_through(Source(path=str(path))).describe(12)
        == f"12 rows of {kind}, alpaca (instruction, input, output)"
    )


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
