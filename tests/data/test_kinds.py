"""What prepared tokens are as code: by hand, and against the spans that the tokenizer itself gives."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data import kinds
from etude.data.bpe import train_tokenizer
from etude.data.corpus import Corpus
from etude.data.kinds import find_kinds
from etude.data.lexer import KIND, KINDS, code_of
from etude.data.prepared import prepare
from etude.data.samples.hidden import Hidden
from etude.data.samples.sample import Ints, Samples
from etude.data.samples.weighted import Weighted
from etude.data.spellings import token_spellings
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Kind, Recipe
from tests.bases import write_qwen2, write_t5

WEIGHTS = {"identifier": 2.0, "comment": 0.25, "special": 3.0}
CODE = "def f(a):  # is é\n    return a + 1\n"
BY_HAND = [  # of CODE, by character
    *["keyword"] * 3, "space", "identifier", "bracket", "identifier", "bracket", "operator", *["space"] * 2,
    *["comment"] * 6, *["space"] * 5, *["keyword"] * 6, "space", "identifier", "space", "operator", "space",
    "number", "space",
]  # fmt: skip
TRAINED = train_tokenizer([(Path(__file__).read_text() + CODE) * 3], 600)
LETTERS = train_tokenizer([""], 257)  # one token a byte


def of_text(text: str, tokenizer: Tokenizer, *, is_answer: bool = False) -> tuple[Ints, list[str]]:
    """The ids of a text, and the kind of each."""
    ids, spellings = tokenizer.encode(text), token_spellings(tokenizer)
    found = b"".join(find_kinds(ids, np.array([[0, len(ids)]]), np.array([is_answer]), spellings))
    return ids, [KINDS[kind] for kind in found]


def recipe_of(path: Path, data: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "x", "tokenizer": {"train_vocab_size": 300}, "loss": {"token_weights": WEIGHTS},
        "data": {"train": [{"path": str(path)}], "validation_ratio": 0.2, **(data or {})},
        "train": {"steps": 10, "global_batch_size": 4, "seq_len": 16},
    }  # fmt: skip
    return recipe_from(change(values, changes))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def weighed(split: Samples, corpus: Corpus) -> list[tuple[str, float]]:
    """The text and the weight of every target of every sample."""
    pairs = []
    for sample in (split.sample(index) for index in range(len(split))):
        assert sample.weights is not None and sample.weights.dtype == np.float32
        assert sample.weights.shape == sample.labels.shape
        pairs += [(label, weight) for label, weight in zip(sample.labels.tolist(), sample.weights.tolist())]
    return [
        (corpus.tokenizer.decode([label], skip_special=False), weight)
        for label, weight in pairs
        if label >= 0
    ]


def test_the_kinds_of_a_recipe_are_those_of_the_lexer() -> None:
    assert get_args(Kind) == KINDS


def test_the_kind_of_each_byte_is_that_of_its_character_by_hand() -> None:
    place = CODE.index("é")
    assert of_text(CODE, LETTERS)[1] == [*BY_HAND[:place], BY_HAND[place], *BY_HAND[place:]]


@given(st.text(st.sampled_from("ab_1 \n\"'#/*(){}:;=+é\u2028😀\t"), max_size=60) | st.text(max_size=30))
def test_kinds_are_those_of_the_spans_that_the_tokenizer_gives(text: str) -> None:
    (ids, _, _, spans), *_ = TRAINED.encode_joined([(text, None)], with_spans=True)
    assert spans is not None
    expected = [KINDS[kind] for kind in code_of([text], spans)[1:-1, KIND]]
    mine, found = of_text(text, TRAINED)
    assert mine.tolist() == ids[1:-1].tolist()
    assert found == expected


@given(st.lists(st.integers(0, TRAINED.vocab_size - 1), max_size=40))
def test_ids_that_are_no_text_have_kinds_too(ids: list[int]) -> None:
    spellings = token_spellings(TRAINED)
    found = b"".join(
        find_kinds(np.array(ids, dtype=np.int64), np.array([[0, len(ids)]]), np.array([True]), spellings)
    )
    assert len(found) == len(ids)
    assert all(
        (kind == 0) == (spellings[token] == b"") or "`" in TRAINED.decode(ids)
        for kind, token in zip(found, ids)
    )


def test_of_an_answer_with_fences_only_what_they_hold_is_code() -> None:
    text = "Use `a`, as:\n```python\nx = 1\n```\nIt is so.\n```\ny\n"
    found = of_text(text, LETTERS, is_answer=True)[1]
    code = {place: kind for place, kind in enumerate(found) if kind != "special"}
    assert "".join(text[place] for place in code) == "x = 1\ny\n"
    assert list(code.values())[:5] == ["identifier", "space", "operator", "space", "number"]
    assert of_text("x = 1", LETTERS, is_answer=True)[1][0] == "identifier"
    assert of_text("`x`", LETTERS, is_answer=True)[1] == ["string"] * 3


def test_a_text_longer_than_a_piece_is_read_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_text(CODE * 3, LETTERS)[1]
    size = len(CODE.encode())
    monkeypatch.setattr(kinds, "_PIECE_TOKENS", size)
    assert of_text(CODE * 3, LETTERS)[1] == whole == of_text(CODE, LETTERS)[1] * 3


@pytest.mark.parametrize("sample", ["row", "document"])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_weights_stand_at_their_targets_also_in_rows_that_begin_amid_a_text(
    sample: str, objective: str, tmp_path: Path
) -> None:
    rows = [
        {"text": f'"""One\nlong {n}"""\ndef name(other):  # {n} it is\n    return other\n'} for n in range(20)
    ]
    changes: dict[str, Any] = {"train.objective": objective, "train.seq_len": 7 if sample == "row" else 64}
    if objective == "masked":
        changes |= {"model.kind": "encoder", "train.mask_ratio": 0.99}
    recipe = recipe_of(write_rows(tmp_path / "rows.jsonl", rows), {"sample": sample}, **changes)
    corpus = prepare(recipe)
    tokenizer = corpus.tokenizer
    expected = {}  # of each text, its ids to the weights
    for row in rows:
        (ids, _, _, spans), *_ = tokenizer.encode_joined([(row["text"], None)], with_spans=True)
        found = [KINDS[kind] for kind in code_of([row["text"]], spans or [])[1:-1, KIND]]
        expected[tuple(ids[1:-1].tolist())] = [WEIGHTS.get(kind, 1.0) for kind in found]
    samples = [corpus.train.sample(index) for index in range(len(corpus.train))]
    labels, weights = (
        np.concatenate([getattr(each, name) for each in samples]) for name in ("labels", "weights")
    )
    if objective == "masked":  # what is hidden is random, so what was there is read without it
        assert isinstance(corpus.train, Weighted) and isinstance(corpus.train.samples, Hidden)
        plain = corpus.train.samples.samples
        whole = np.concatenate([plain.sample(index).labels for index in range(len(plain))])
        assert ((labels == whole) | (labels == -100)).all() and (labels >= 0).mean() > 0.8
        labels = whole
    ends = np.flatnonzero(labels == tokenizer.eos_id)
    assert (weights[ends] == 3.0).all() and len(ends) == corpus.train.spans.documents
    for begin, end in zip(np.r_[0, ends[:-1] + 1], ends):
        assert weights[begin:end].tolist() == expected[tuple(labels[begin:end].tolist())]
    for other in (corpus.validation, corpus.test):
        assert other is None or other.sample(0).weights is None


def test_of_a_conversation_each_answer_is_read_alone(tmp_path: Path) -> None:
    # An apostrophe in what is asked would begin a string, were it read with the answer.
    turns = [
        ("user", "don't '''"),
        ("assistant", "left = 1"),
        ("user", 'no """'),
        ("assistant", "# total\ntotal"),
    ]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    path = write_rows(tmp_path / "chat.jsonl", [row | {"id": n} for n in range(2)])
    base = write_qwen2(tmp_path / "base")
    held = {"validation": [{"path": str(path)}], "leakage": {"action": "report"}}
    recipe = recipe_of(path, held, **{"model.from": str(base), "tokenizer": {}, "train.seq_len": 200})
    corpus = prepare(recipe, tokenizer_folder=base)
    mine = weighed(corpus.train, corpus)
    mine = mine[: len(mine) // 2]
    assert "".join(text for text, _ in mine) == "left = 1<|im_end|># total\ntotal<|im_end|>"
    by_weight = {
        weight: "".join(text for text, each in mine if each == weight) for weight in {w for _, w in mine}
    }
    assert (
        by_weight[3.0] == "<|im_end|>" * 2 and by_weight[0.25] == "# total" and by_weight[2.0] == "lefttotal"
    )


def test_of_a_pair_the_target_is_read_alone_and_cut_with_its_weights(tmp_path: Path) -> None:
    rows = [{"source": f"don't {n} '''", "target": f"left = {n} # total"} for n in range(9)]
    path, base = write_rows(tmp_path / "pairs.jsonl", rows), write_t5(tmp_path / "base")
    sources = {"train": [{"path": str(path), "field": "source", "target": "target"}]}
    changes = {"tokenizer": {}, "train.objective": "seq2seq", "model.from": str(base), "data": sources}
    long, short = (
        prepare(recipe_of(path, **changes, **{"train.target_len": n}), tokenizer_folder=base) for n in (32, 6)
    )
    found = weighed(long.train, long)
    by_weight = {weight: {text for text, each in found if each == weight} for weight in (0.25, 2.0, 3.0)}
    assert by_weight == {0.25: {"#", " to", "tal"}, 2.0: {"lef", "t"}, 3.0: {"<s>", "</s>"}}
    for index in range(len(short.train)):
        cut, whole = short.train.sample(index), long.train.sample(index)
        assert (
            cut.weights is not None and whole.weights is not None and len(cut.labels) == 6 < len(whole.labels)
        )
        assert cut.weights.tolist() == [*whole.weights[:5], whole.weights[-1]]


def test_without_weights_nothing_is_noted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"text": f"def f{n}(): pass"} for n in range(20)])
    plain, noted = prepare(recipe_of(path, loss={})), prepare(recipe_of(path))
    folders = [Path(corpus.summary["folder"]) for corpus in (plain, noted)]
    assert {file.name for file in folders[1].iterdir()} - {file.name for file in folders[0].iterdir()} == {
        "kinds.bin"
    }
    assert plain.train.sample(0).weights is None
    assert plain.fingerprint == noted.fingerprint
    other = prepare(recipe_of(path, loss={"token_weights": {"string": 0.0}}))
    assert other.summary["cached"] and other.summary["folder"] == noted.summary["folder"]


def test_a_tokenizer_that_leaves_out_bytes_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers

    inner = Inner(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "def": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["[SEP]"])
    inner.save(str(tmp_path / "tokenizer.json"))
    path = write_rows(tmp_path / "rows.jsonl", [{"text": f"def {n}"} for n in range(20)])
    recipe = recipe_of(path, tokenizer={"from": str(tmp_path / "tokenizer.json")})
    with pytest.raises(InputError, match="needs a tokenizer whose ids tell the bytes"):
        prepare(recipe)
