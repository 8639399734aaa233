"""What is noted of documents on their way to token ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers

from etude.data.page import list_notes
from etude.data.prepared import prepare
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.recipe import schema
from etude.recipe.load import recipe_from
from tests.bases import write_qwen2


def test_texts_with_special_tokens_and_columns_that_nothing_reads_are_counted_and_named(
    tmp_path: Path,
) -> None:
    base = write_qwen2(tmp_path / "base")
    rows = [{"text": f"<|im_start|>user\n{n}<|im_end|>\n", "id": n} for n in range(6)] + [
        {"text": "plain", "id": 7, "x": 1}
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "x", "tokenizer": {"from": str(base)},
        "train": {"steps": 1, "seq_len": 16, "global_batch_size": 1},
        "data": {"train": [{"path": str(path)}], "validation": "none"},
    }  # fmt: skip
    summary = prepare(recipe_from(values)).summary
    (source,) = summary["sources"]
    assert source["unread_columns"] == ["id", "x (1 rows)"]
    assert source["special_tokens_read_as_text"] == 6 and source["such_as"] == ["<|im_start|>"]
    columns, special = list_notes(summary)
    assert columns == f"{path}: columns that are not read: id, x (1 rows)"
    assert special.startswith(
        f"{path}: 6 of 7 texts hold special tokens, such as <|im_start|>, which are read as plain"
    )
    answered = [{"prompt": "say <|im_end|>", "completion": "a"}, {"prompt": "q", "completion": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in answered))
    (source,) = prepare(recipe_from(values)).summary["sources"]
    assert source["special_tokens_read_as_text"] == 1


def lossy(folder: Path, *, byte_level: bool = False, **model: Any) -> Path:
    """A BPE that knows a few letters, or bytes, and has no token for the others."""
    inner = Inner(
        models.BPE({"</s>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4, "\u2581": 5}, [("a", "b")], **model)
    )
    inner.add_special_tokens(["</s>"])
    if byte_level:
        inner.pre_tokenizer, inner.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
    folder.mkdir(exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    return folder


def recipe_of(base: Path, path: Path, source: Any = None, model: str = "decoder", **train: Any) -> Any:
    values: dict[str, Any] = {
        "name": "x", "tokenizer": {"from": str(base)},
        "model": {"kind": model, "n_layer": 1, "n_embd": 8, "n_head": 1},
        "train": {"steps": 1, "seq_len": 32, "global_batch_size": 1, **train},
        "data": {"train": [{"path": str(path), **(source or {})}], "validation": "none"},
    }  # fmt: skip
    return recipe_from(values)


@pytest.mark.parametrize(
    "rows", [["\U0001f600 b" * 20_000] * 20, ["a" * 1_500_000, "b", "a b " * 200_000]], ids=["many", "long"]
)
def test_no_more_text_than_a_few_hundred_mb_of_tokens_is_read_at_once(
    rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    read = Tokenizer.encode_batch

    def count(tokenizer: Tokenizer, texts: list[str]) -> Any:
        sizes.append(sum(len(text.encode()) for text in texts))
        return read(tokenizer, texts)

    monkeypatch.setattr(Tokenizer, "encode_batch", count)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    prepare(recipe_of(lossy(tmp_path / "t", byte_level=True), path))
    assert sum(sizes) > 2_000_000 and max(sizes) <= 3 << 19  # 300 bytes for each that is a token: 0.5 GB


@pytest.mark.parametrize("byte_level", [False, True])
def test_bytes_that_no_token_stands_for_are_counted_and_bits_per_byte_are_not_told(
    byte_level: bool, tmp_path: Path
) -> None:
    base = lossy(tmp_path / "t", byte_level=byte_level)
    text = "abab \u00e9\u65e5 abc\n" * 10
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    corpus = prepare(recipe_of(base, tmp_path / "a.txt"))
    kept = set("ab ") if byte_level else set("ab")
    expected = sum(len(sign.encode()) for sign in text if sign not in kept)
    assert corpus.summary["lost_bytes"] == expected
    assert corpus.summary["lost_ratio"] == pytest.approx(expected / len(text.encode()))
    assert corpus.token_bytes is None
    (note,) = list_notes(corpus.summary)
    assert note.startswith(f"{expected} bytes of the texts (") and "bits per byte are not told" in note


@pytest.mark.parametrize("kind", ["labels", "pairs", "messages"])
def test_lost_bytes_are_counted_in_each_kind_of_row(kind: str, tmp_path: Path) -> None:
    base = lossy(tmp_path / "t")
    row: dict[str, Any] = {"text": "ab\u00e9", "other": "a\u65e5", "label": "x"}
    source, model, train = {"label": "label", "pair": "other"}, "encoder", {"objective": "classification"}
    if kind == "pairs":
        source, model, train = (
            {"field": "text", "target": "other"},
            "encoder-decoder",
            {"objective": "seq2seq"},
        )
    if kind == "messages":
        turns = [{"role": "user", "content": "ab\u00e9"}, {"role": "assistant", "content": "a\u65e5"}]
        row, source, model, train = {"messages": turns}, {}, "decoder", {}
    rows = [row, {**row, "label": "y", "text": "b\u00e9"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    recipe = recipe_of(base, tmp_path / "a.jsonl", source, model, **train)
    assert prepare(recipe).summary["lost_bytes"] == 2 * 5


def test_a_tokenizer_that_keeps_all_text_loses_nothing_and_is_not_searched(tmp_path: Path) -> None:
    trained = load_tokenizer(schema.Tokenizer(from_=str(write_qwen2(tmp_path / "base"))))
    assert not trained.can_lose_text and trained.count_lost("\u00e9\u65e5\0") == 0
    vocabulary = {
        token: at for at, token in enumerate(["</s>", "a", *(f"<0x{byte:02X}>" for byte in range(256))])
    }
    for byte_fallback in (True, False):
        inner = Inner(models.BPE(vocabulary, [], byte_fallback=byte_fallback))
        inner.add_special_tokens(["</s>"])
        inner.save(str(tmp_path / "tokenizer.json"))
        tokenizer = load_tokenizer(schema.Tokenizer(from_=str(tmp_path / "tokenizer.json")))
        assert tokenizer.can_lose_text is not byte_fallback
        assert tokenizer.count_lost("a\u00e9a") == (0 if byte_fallback else 2)


def test_what_a_metaspace_or_an_added_token_stands_for_is_not_lost(tmp_path: Path) -> None:
    inner = Inner.from_file(str(lossy(tmp_path / "t") / "tokenizer.json"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.add_tokens(["<tab>"])
    inner.save(str(tmp_path / "t" / "tokenizer.json"))
    tokenizer = load_tokenizer(schema.Tokenizer(from_=str(tmp_path / "t")))
    assert tokenizer.count_lost("ab a<tab>b \u00e9") == 2 and tokenizer.count_lost("ab a<tab>b") == 0


def test_what_a_unigram_does_not_know_is_counted_as_unknown(tmp_path: Path) -> None:
    inner = Inner(models.Unigram([("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=1))
    inner.add_special_tokens(["</s>", "<unk>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("ab" * 8 + "\u00e9")
    summary = prepare(recipe_of(tmp_path / "tokenizer.json", tmp_path / "a.txt")).summary
    assert summary["unknown_ratio"] == pytest.approx(1 / 18)
    assert list_notes(summary) == ["5.56% of the tokens stand for what the tokenizer does not know"]
