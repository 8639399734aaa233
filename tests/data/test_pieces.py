import json
from pathlib import Path

import numpy as np
import pytest

from etude.data import pieces as module
from etude.data.pieces import cut_text
from etude.data.tokenizer_files import load_tokenizer
from etude.errors import InputError
from etude.recipe import schema
from tests import conftest
from tests.bases import write_qwen2

SHARED = conftest.SHARED / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data of the project is not beside it")


@needs_shared
@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_long_texts_in_pieces_give_the_ids_of_the_whole(name: str) -> None:
    section = schema.Tokenizer.model_validate({"from": str(SHARED / "tokenizers" / name)})
    tokenizer = load_tokenizer(section)
    prose = (SHARED / "tinyshakespeare" / "input.txt").read_text()[:100_000]
    code = Path(json.__file__).with_name("decoder.py").read_text() * 4
    for text in (prose, code, prose[:50_000].replace("\n", "\r\n"), "x" * 50_000, "a\n\n  b" * 5_000):
        pieces = list(cut_text(text, tokenizer, 10_000))
        assert "".join(piece for piece, _ in pieces) == text and [end for _, end in pieces][-1]
        ids = np.concatenate(tokenizer.encode_batch([piece for piece, _ in pieces]))
        assert np.array_equal(ids, tokenizer.encode(text))
        assert len(pieces) > 4 or text[0] in "xa"


def test_a_tokenizer_without_borders_gets_the_text_whole(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, normalizers

    vocab = {"▁": 0, "a": 1, "\n": 2, "</s>": 3}
    inner = Inner(models.BPE(vocab, [], fuse_unk=False))
    inner.normalizer = normalizers.Prepend("▁")
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(schema.Tokenizer.model_validate({"from": str(tmp_path / "tokenizer.json")}))
    text = "a\n" * 2000
    assert list(cut_text(text, tokenizer, 1000)) == [(text, True)]


def test_a_stretch_of_text_without_a_border_is_refused_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(schema.Tokenizer(from_=str(write_qwen2(tmp_path / "base"))))
    mixed = "a b " * 100 + "x" * 250 + " c d" * 100
    assert "".join(piece for piece, _ in cut_text(mixed, tokenizer, 100)) == mixed
    monkeypatch.setattr(module, "_LONGEST_STRETCH", 400)
    with pytest.raises(InputError, match=r"a\.jsonl:3 has over 400 bytes in a stretch"):
        list(cut_text("a b " * 100 + "x" * 1000, tokenizer, 100, name="a.jsonl:3"))
    with pytest.raises(InputError, match=r"a\.jsonl:3 has over 400 bytes in a stretch"):
        list(cut_text("a b " * 100 + "\U0001f600" * 300, tokenizer, 100, name="a.jsonl:3"))
    with pytest.raises(InputError, match=r"a\.jsonl:3 has over 400 bytes in a stretch"):
        module.check_stretches("\u3000".join(["a", "\U0001f600" * 101]), "a.jsonl:3")
    module.check_stretches("\u3000".join(["\U0001f600" * 100] * 9), "a.jsonl:3")
