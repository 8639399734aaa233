"""Texts that a tokenizer cannot read, or takes hours for, are named by their beginning in one line."""

import json
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Inner

from etude.data import patience
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from tests.hostile.bad_tokenizers import content


def tokenizer_with(**changes: Any) -> Tokenizer:
    """A tokenizer as if it had passed the trial."""
    return Tokenizer(json.dumps({**content(), **changes}), "</s>")


def test_what_the_tokenizer_cannot_read_is_named_by_its_beginning() -> None:
    words = {"type": "WordLevel", "vocab": {"</s>": 0, "a": 1}, "unk_token": "[UNK]"}
    tokenizer = tokenizer_with(model=words)
    with pytest.raises(
        InputError, match=r"cannot read the text that begins 'left' \(WordLevel error: Missing"
    ):
        tokenizer.encode_batch(["a", "left", "a"])
    with pytest.raises(InputError, match="cannot read the text that begins 'left"):
        tokenizer.encode_joined([("a", "a"), ("left", "a")])
    with pytest.raises(InputError, match="cannot read the text that begins 'left"):
        tokenizer.encode_rendered("left")


def test_a_panic_of_the_native_code_on_the_data_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    inner = Inner.from_str(json.dumps(content()))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = Tokenizer(inner.to_str(), "</s>")  # as if it had passed the trial
    assert tokenizer.encode("ab").tolist() == [1, 2]
    with pytest.raises(InputError, match=r"cannot read the text that begins 'aaaa.*retry-limit"):
        tokenizer.encode_batch(["ab", "a" * 60 + "b"])
    capfd.readouterr()


def test_too_many_tokens_for_a_text_are_refused() -> None:
    grown = {"type": "Replace", "pattern": {"String": "ba"}, "content": "a" * 5000}
    tokenizer = tokenizer_with(normalizer=grown)
    with pytest.raises(InputError, match="makes 5,000 tokens of the text that begins 'ba'"):
        tokenizer.encode_batch(["ab", "ba"])


def split_by(pattern: str) -> str:
    """A tokenizer.json whose texts are split by a regular expression."""
    inner = Inner.from_str(json.dumps(content()))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return inner.to_str()


@pytest.mark.parametrize("way", ["encode", "rendered", "joined"])
def test_a_tokenizer_that_would_take_hours_for_a_text_is_left_alone(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_SECONDS", 0.2)
    tokenizer = Tokenizer(split_by(r"q(?=\w*\w*!)|."), "</s>")  # as if it had passed the trial
    read = {
        "encode": tokenizer.encode,
        "rendered": tokenizer.encode_rendered,
        "joined": lambda text: tokenizer.encode_joined([(text, None)], 8),
    }[way]
    with pytest.raises(InputError, match=r"takes over 0 s of the processor for 2,400 characters .*'qqqq"):
        read("q" * 2400)  # 8 s
    assert len(Tokenizer(split_by("."), "</s>").encode("ab")) == 2
