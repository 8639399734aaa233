"""The ids of texts, whatever the pieces and batches that they are read in."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from etude.data import encode as module
from etude.data.encode import batch_documents, encode_texts
from etude.data.sources import Document, read_documents
from etude.data.tally import Tally
from etude.data.tokenizer_files import load_tokenizer
from etude.recipe import schema
from etude.recipe.data import Source
from tests.bases import write_llama, write_qwen2

TEXTS = ["def f():\n    return 1\n", "x", "a b c " * 50]


def documents(folder: Path, tally: Tally) -> Iterator[Document]:
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    sources = [Source(path=str(folder), glob="*.txt")]
    return tally.read(sources, undecodable=False, removed=None)


@pytest.mark.parametrize("write", [write_qwen2, write_llama])
@pytest.mark.parametrize("characters", [1, 10_000])
def test_texts_end_with_the_end_token_and_examples_begin_as_the_tokenizer_begins_a_text(
    write: object, characters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(write)
    tokenizer = load_tokenizer(schema.Tokenizer(from_=str(write(tmp_path / "base"))))
    (tmp_path / "texts").mkdir()
    monkeypatch.setattr(module, "BATCH_BYTES", characters)
    for are_examples in (False, True):
        tally = Tally()
        texts = documents(tmp_path / "texts", tally)
        ids = np.concatenate(list(encode_texts(texts, tally, tokenizer, are_examples=are_examples)))
        begin = [tokenizer.bos_id] if are_examples and tokenizer.bos_id is not None else []
        expected = [[*begin, *tokenizer.encode(text).tolist(), tokenizer.eos_id] for text in TEXTS]
        assert ids.tolist() == [token for each in expected for token in each]
        assert tally.offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()


def test_batches_hold_all_documents_in_their_order(tmp_path: Path) -> None:
    read = list(documents(tmp_path, Tally()))
    batches = list(batch_documents(iter(read), 10))
    assert [document for batch in batches for document in batch] == read
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert [document.text for document in read_documents(Source(path=str(tmp_path), glob="*.txt"))] == TEXTS


def test_batches_hold_so_many_characters_of_all_text_of_documents() -> None:
    documents = [Document("a", None, "rows.jsonl", line, pair="b" * 100) for line in range(40)]
    assert [len(batch) for batch in batch_documents(iter(documents), 1020)] == [10] * 4
    assert [len(batch) for batch in batch_documents(iter(documents), 1019)] == [9] * 4 + [4]
    assert [len(batch) for batch in batch_documents(iter(documents), 1)] == [1] * 40
