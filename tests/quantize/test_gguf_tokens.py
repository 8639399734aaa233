"""Tokenizers in GGUF: read back by transformers, and named by their pattern as llama.cpp names them."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import pre_tokenizers

from etude.data.bpe import train_tokenizer
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.errors import InputError
from etude.quantize.gguf_tokens import add_tokens, encode, find_splits
from etude.recipe import model as recipe
from tests.conftest import SHARED

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
TEXTS = ["def total(a, b):\n    return a + 12345\n\n\nclass A:\n    pass\n", "it's  3.14\t\n  x = [1]\n"]


def trained() -> Tokenizer:
    return train_tokenizer(iter(TEXTS * 20), 300)


def changed(tokenizer: Tokenizer, **parts: Any) -> Tokenizer:
    return Tokenizer(json.dumps(json.loads(tokenizer.to_json()) | parts), tokenizer.eos_token)


def with_splits(*steps: Any) -> Tokenizer:
    inner = Inner.from_str(trained().to_json())
    inner.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    return Tokenizer(inner.to_str(), trained().eos_token)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_published_tokenizers_are_named_by_their_pattern(name: str) -> None:
    folder = SHARED / "data" / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip("the tokenizers are not here")
    tokenizer = load_tokenizer(recipe.Tokenizer.model_validate({"from": str(folder)}))
    splits = find_splits(tokenizer, [])
    assert splits.name == {"qwen2": "qwen2", "gpt2": "gpt-2"}[name] and splits.same
    assert encode(splits.inner, TEXTS) == [each.tolist() for each in tokenizer.encode_batch(TEXTS)]


def test_digits_one_by_one_before_the_pattern_of_gpt2_are_starcoders() -> None:
    found = find_splits(with_splits(pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)), TEXTS)
    assert found.name == "starcoder" and found.same


def test_another_pattern_is_named_by_the_nearest_and_gives_other_ids() -> None:
    tokenizer = trained()
    splits = find_splits(tokenizer, TEXTS)
    assert not splits.same
    assert encode(splits.inner, TEXTS) != [each.tolist() for each in tokenizer.encode_batch(TEXTS)]
    assert [tokenizer.decode(ids) for ids in encode(splits.inner, TEXTS)] == TEXTS


def test_transformers_reads_the_same_tokens_back(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    inner = Inner.from_str(with_splits(pre_tokenizers.ByteLevel(False)).to_json())
    inner.add_special_tokens(["<|im_end|>"])
    inner.add_tokens(["<think>"])
    tokenizer = Tokenizer(inner.to_str(), "<|im_end|>")
    size = tokenizer.vocab_size + 3
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    add_tokens(writer, tokenizer, "gpt-2", size, [tokenizer.eos_id, 0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fields = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "a.gguf").fields.items()}
    assert fields["tokenizer.ggml.eot_token_id"] == 0 and not fields["tokenizer.ggml.add_bos_token"]
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{size - 1}]"
    assert fields["tokenizer.ggml.token_type"][-5:] == [3, 4, 5, 5, 5]
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    for text in [*TEXTS, "a<|im_end|>b", "<think>x"]:
        ours = inner.encode(text).ids
        assert theirs.encode(text, add_special_tokens=False) == ours
    assert theirs.eos_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"pre_tokenizer": None}, "the tokenizer is a BPE that is not byte-level"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}}, "is not byte-level"),
        ({"normalizer": {"type": "Lowercase"}}, "the tokenizer changes text by Lowercase, which llama.cpp does not"),
    ],
)  # fmt: skip
def test_tokenizers_that_llama_cpp_would_read_otherwise_are_refused(parts: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_splits(changed(trained(), **parts), TEXTS)


def test_ids_beyond_the_embedding_are_refused() -> None:
    tokenizer = trained()
    with pytest.raises(InputError, match=r"has id (\d+), and the model \1 embeddings"):
        add_tokens(gguf.GGUFWriter(None, "llama"), tokenizer, "gpt-2", tokenizer.vocab_size - 1, [0])
