"""Tokenizers give text back, end documents only where they end, and load in transformers."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.spellings import token_bytes
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.recipe import schema
from tests.data.tokenizers import SHARED, needs_shared, save, section, trained_tokenizer
from tests.hostile import bad_tokenizers


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return trained_tokenizer()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back(trained: Tokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    sizes = token_bytes(trained)
    assert sizes is not None and sizes[ids].sum() == len(text.encode())


def sentencepiece(folder: Path) -> Tokenizer:
    """A tokenizer of Llama's kind: a space before each text, which is taken away as it is read back."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers

    entries = [
        "<unk>",
        "</s>",
        *(f"<0x{code:02X}>" for code in range(256)),
        "▁",
        *map(chr, range(33, 127)),
        "▁▁",
    ]
    inner = Inner(models.BPE({each: at for at, each in enumerate(entries)}, [("▁", "▁")], byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["</s>"])
    inner.save(str(folder / "tokenizer.json"))
    return load_tokenizer(schema.Tokenizer(from_=str(folder / "tokenizer.json")))


@settings(max_examples=50, deadline=None)
@given(text=st.text(" ab\n", min_size=1, max_size=30), at=st.integers(0, 30))
def test_what_tokens_add_to_others_has_its_spaces(
    pieces: Tokenizer, trained: Tokenizer, text: str, at: int
) -> None:
    for tokenizer in (pieces, trained):
        ids = tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids[:at]) + tokenizer.decode_after(ids[:at], ids[at:]) == text


def test_a_character_that_began_in_tokens_before_is_whole(pieces: Tokenizer) -> None:
    ids = pieces.encode("aé").tolist()
    assert pieces.decode(ids[:3]) == "a\ufffd" and pieces.decode_after(ids[:3], ids[3:]) == "é"


def test_the_text_of_a_special_token_does_not_end_a_document(trained: Tokenizer) -> None:
    text = "a<|endoftext|>b"
    ids = trained.encode(text)
    assert trained.eos_id not in ids and trained.decode(ids) == text


@needs_shared
def test_a_folder_without_tokenizer_json_gets_one_beside_its_own_files(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(section(SHARED / "qwen2"))
    files = tokenizer.files()
    assert files["vocab.json"] == (SHARED / "qwen2" / "vocab.json").read_bytes() and "tokenizer.json" in files
    saved = save(tokenizer, tmp_path / "qwen2")
    ours, theirs = (AutoTokenizer.from_pretrained(str(folder)) for folder in (saved, SHARED / "qwen2"))
    text = "<|im_start|>user\ndef f(x):\n\treturn 12345  # é<|im_end|>\n"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"] == tokenizer.encode_rendered(text)
    assert ours.eos_token == theirs.eos_token == tokenizer.eos_token


@pytest.mark.parametrize("given", [False, True])
def test_other_tools_put_around_texts_what_is_put_there_here(
    given: bool, trained: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = trained
    if given:  # as Qwen2.5's settings say it; transformers would leave out what tokenizer.json puts there
        folder = save(trained, tmp_path / "given")
        settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"add_bos_token": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = load_tokenizer(section(folder))
    plain, pairs = ["value = 1", "def f(x):"], [("value = 1", "x"), ("return", "def f(x): return x")]
    ours = [each[0].tolist() for each in tokenizer.encode_joined([*((text, None) for text in plain), *pairs])]
    (tmp_path / "out").mkdir()
    for name, content in tokenizer.files(joined=True, pad_id=tokenizer.vocab_size).items():
        (tmp_path / "out" / name).write_bytes(content)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(plain)["input_ids"] + theirs(pairs)["input_ids"] == ours
    assert all(ids[0] == ids[-1] == tokenizer.eos_id for ids in ours)
    assert theirs.pad_token_id == tokenizer.vocab_size and theirs.eos_token_id == tokenizer.eos_id
    again = load_tokenizer(section(tmp_path / "out"))
    assert [each[0].tolist() for each in again.encode_joined([(text, None) for text in plain])] == ours[:2]
    save(tokenizer, tmp_path / "causal")
    assert AutoTokenizer.from_pretrained(tmp_path / "causal")(plain[0])["input_ids"] == ours[0][1:-1]
    assert tokenizer.bos_id is None


def test_what_every_text_ends_with_is_never_padding(trained: Tokenizer) -> None:
    end, rows = trained.eos_id, trained.vocab_size
    assert trained.choose_padding(None, rows + 5) == trained.choose_padding(end, rows + 5) == rows
    assert trained.choose_padding(7, rows + 5) == 7
    assert trained.choose_padding(end, rows) != end


def test_texts_are_whole_behind_texts_that_were_cut() -> None:
    tokenizer = Tokenizer(json.dumps(bad_tokenizers.content()), "</s>")
    assert [len(tokenizer.encode_joined([("ab" * 9, None)], 8)[0][0])] == [8]
    assert len(tokenizer.encode("ab" * 9)) == len(tokenizer.encode_rendered("ab" * 9)) == 18
    assert len(tokenizer.encode_joined([("ab" * 9, None)])[0][0]) == 20
