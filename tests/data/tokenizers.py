"""A tokenizer of code, saved and named as recipes name it."""

from functools import cache
from pathlib import Path

import pytest

from etude.data.bpe import train_tokenizer
from etude.data.tokenize import Tokenizer
from etude.recipe import model

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the tokenizers of the project are not beside it"
)
CODE = ["def f(x):\n    return self._x[123456]\n\n\n" * 5, "class A:\r\n\tpass  # é 日本\n"] * 3


@cache
def trained_tokenizer() -> Tokenizer:
    """A BPE of 320 tokens, trained once."""
    return train_tokenizer(CODE, 320)


def section(path: Path, eos: str | None = None) -> model.Tokenizer:
    """The [tokenizer] of a recipe that takes the one at a path."""
    return model.Tokenizer.model_validate({"from": str(path), "eos_token": eos})


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    """The folder, made with the files of a tokenizer."""
    folder.mkdir()
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder
