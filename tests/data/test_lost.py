"""Bytes that a tokenizer leaves out are those that its tokens, joined, lack."""

import json
import random

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from etude.data.lost import BYTE_SIGNS, can_lose, count_lost

BYTES = {f"<0x{byte:02X}>": 100 + byte for byte in range(256)}
ALPHABET = "abc \u00e9"


def content(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())


def bpe(vocabulary: dict[str, int], **settings: object) -> Tokenizer:
    return Tokenizer(models.BPE(vocabulary, [], **settings))


def test_the_signs_are_those_of_byte_level_tokenizers() -> None:
    assert sorted(BYTE_SIGNS.values()) == list(range(256))
    assert set(BYTE_SIGNS) == set(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "a \n\u00e9\u65e5\U0001f600\x7f"
    (piece, _), = splitter.pre_tokenize_str(text)  # fmt: skip
    assert bytes(BYTE_SIGNS[sign] for sign in piece) == text.encode()


@pytest.mark.parametrize("is_byte_level", [False, True])
def test_each_character_without_a_token_counts_its_bytes(is_byte_level: bool) -> None:
    known = sorted({*"ab", *(["\u00c3", "\u00a9"] if is_byte_level else ["\u00e9"])})
    tokenizer = bpe({sign: number for number, sign in enumerate(known)})
    if is_byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    draw = random.Random(0)
    assert can_lose(content(tokenizer))
    for _ in range(50):
        text = "".join(draw.choices(ALPHABET + "\u65e5", k=30))
        lost = sum(len(sign.encode()) for sign in text if sign not in "ab\u00e9")
        assert count_lost(tokenizer, content(tokenizer), text) == lost


def test_what_a_normalizer_takes_out_and_added_tokens_are_not_lost() -> None:
    tokenizer = bpe({"a": 0})
    tokenizer.normalizer = normalizers.Replace("x", "")
    tokenizer.add_tokens(["<tab>"])
    assert count_lost(tokenizer, content(tokenizer), "axxa<tab>a") == 0
    assert count_lost(tokenizer, content(tokenizer), "axba<tab>ab") == 2


def test_bytes_and_unknown_tokens_lose_nothing() -> None:
    assert can_lose(content(bpe({"a": 0})))
    assert not can_lose(content(bpe({"a": 0, "?": 1}, unk_token="?")))
    assert not can_lose(content(bpe({"a": 0, **BYTES}, byte_fallback=True)))
    few = {name: number for name, number in BYTES.items() if number < 300}
    assert can_lose(content(bpe({"a": 0, **few}, byte_fallback=True)))
    whole = bpe({sign: number for number, sign in enumerate(BYTE_SIGNS)})
    assert can_lose(content(whole))  # without the pre-tokenizer its signs are letters
    whole.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert not can_lose(content(whole)) and count_lost(whole, content(whole), "\u65e5 a") == 0
    assert not can_lose(content(Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))))
