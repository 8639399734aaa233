"""Files are rows or texts by their content, and by what lies beside them."""

import json
from pathlib import Path

from etude.data.layout import look_through
from etude.data.sources import read_documents
from etude.recipe.data import Source
from tests.data.files import ALPACA, refusal, write


def test_json_and_csv_beside_code_are_texts_unless_their_rows_fit_a_format(tmp_path: Path) -> None:
    write(tmp_path / "a.py", "print(1)")
    configs = {"package.json": '{"name": "a"}', "list.json": '[{"id": 1}]', "table.csv": "id,n\n1,2\n"}
    for name, content in configs.items():
        write(tmp_path / name, content)
    documents = {document.name: document for document in read_documents(Source(path=str(tmp_path)))}
    assert {Path(name).name: document.text for name, document in documents.items()} == configs | {
        "a.py": "print(1)"
    }
    assert look_through(Source(path=str(tmp_path), glob="a*")).describe(1) == "1 document, from 1 file (a*)"
    assert look_through(Source(path=str(tmp_path))).describe(4) == "4 documents, from 4 files (**/*)"
    write(tmp_path / "train.json", json.dumps(ALPACA))
    assert len(list(read_documents(Source(path=str(tmp_path))))) == 4 + 12
    said = look_through(Source(path=str(tmp_path))).describe(16)
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
        assert {path.name for path in look_through(source).rows_as_texts} >= set(rows)
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
        assert "train.jsonl:1 has no field 'text', which must be a string; no field of it is one" in message


def test_settings_about_rows_need_rows_in_every_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}')
    write(tmp_path / "README.md", "about")
    for settings in ({"label": "label"}, {"format": "alpaca"}, {"group_by": "label"}, {"pair": "label"}):
        assert "README.md has no rows, which" in refusal(tmp_path, **settings)
