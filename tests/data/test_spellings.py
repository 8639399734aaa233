"""The bytes that ids stand for are those of the text that they were made from."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.data.bpe import train_tokenizer
from etude.data.spellings import token_bytes, token_spellings
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.recipe import schema

TRAINED = train_tokenizer([Path(__file__).read_text() * 3], 600)


@given(st.text(max_size=40))
def test_spellings_end_to_end_are_the_text(text: str) -> None:
    spellings = token_spellings(TRAINED)
    assert b"".join(spellings[token] for token in TRAINED.encode(text)) == text.encode()


def test_spellings_of_tokenizers_that_fall_back_to_bytes_are_the_text() -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers

    vocabulary = {
        "<unk>": 0,
        "</s>": 1,
        **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)},
        "▁": 258,
        "a": 259,
    }
    inner = Inner(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens(["</s>"])
    spellings = token_spellings(tokenizer := Tokenizer(inner.to_str(), "</s>"))
    assert b"".join(spellings[token] for token in tokenizer.encode("a é\n a")) == "a é\n a".encode()


def test_a_tokenizer_of_whole_words_has_no_bytes_per_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers

    inner = Inner(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2, "</s>": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(schema.Tokenizer(from_=str(tmp_path)))
    assert token_bytes(loaded) is None and loaded.unk_id == 2
    assert np.array_equal(loaded.encode("a c b"), [0, 2, 1])
