"""A folder of prepared data that is not what a build writes is named when it is opened or read."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.data.cache import to_npy
from etude.data.loader import Loader
from etude.data.prepared import prepare
from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests.hostile.bad_caches import seal

WORDS = {"text": "def f(x): return x", "label": "a", "other": "b", "prompt": "p", "completion": "c"}
DAMAGE: dict[str, list[tuple[str, Any, Any]]] = {
    "examples": [
        ("answers", np.array([["a", "b"]] * 8), None), ("answers", [[5, 2]] * 8, np.int64),
        ("answers", [[9, 9], [1, 2]], np.int64), ("answers", [[0, 10**9]], np.int64),
        ("answers", [1, 2], np.int64), ("capabilities", [0] * 8, np.int64),
        ("capabilities", [-2] * 8, np.int64), ("places", [[1, 0]] * 8, np.int64),
        ("places", [[-1, 0]] * 8, np.int64), ("kinds.bin", b"", None), ("kinds.bin", b"\xff", None),
    ],
    "labelled": [
        ("labels", np.full((8, 2), 2), np.uint8), ("labels", np.ones((8, 3)), np.uint8),
        ("cuts", [7] * 8, np.uint8), ("seconds", [10**6] * 8, np.int64), ("seconds", [-1] * 8, np.int64),
        ("code", [[9, 0, 0, 0]], np.uint16), ("code", [[0, 16, 0, 0]], np.uint16),
        ("code", [[0, 0, 0]], np.uint16),
    ],
    "pairs": [
        ("seconds", [10**6] * 8, np.int64), ("reference_places", [0, 5], np.int64),
        ("reference_places", [0, 9, 3, 3, 3, 3, 3, 3, 8], np.int64), ("references.bin", b"", None),
    ],
}  # fmt: skip


def recipe_for(kind: str, folder: Path) -> Recipe:
    """A recipe for data of a kind, with all the files that they can have."""
    rows = [
        {**WORDS, "text": f"def f{n}(x): return {n}", "label": "ab"[n % 2], "prompt": f"p {n}"}
        for n in range(8)
    ]
    if kind == "examples":
        rows = [{"prompt": row["prompt"], "completion": f"return {row['label']}"} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, source, train, rest = {
        "examples": ({}, {}, {"objective": "causal"}, {"loss": {"token_weights": {"keyword": 2.0}}}),
        "labelled": (
            {"kind": "encoder", "code_bias": "inside"}, {"label": "label", "field": "text"},
            {"objective": "classification"}, {},
        ),
        "pairs": (
            {"kind": "encoder-decoder"}, {"field": "prompt", "target": "completion"},
            {"objective": "seq2seq"}, {},
        ),
    }[kind]  # fmt: skip
    return recipe_from(
        {
            "name": "x", "model": model, "tokenizer": {"train_vocab_size": 300},
            "data": {"train": [{"path": str(folder / "rows.jsonl"), **source}], "validation_ratio": 0.3},
            "train": {"steps": 1, "seq_len": 64, "global_batch_size": 4, **train}, **rest,
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_number_that_no_build_writes_is_found_when_data_are_opened(kind: str, tmp_path: Path) -> None:
    recipe = recipe_for(kind, tmp_path)
    corpus = prepare(recipe)
    folder = Path(corpus.summary["folder"])
    for name, values, dtype in DAMAGE[kind]:
        content = values if isinstance(values, bytes) else to_npy(np.array(values, dtype=dtype))
        file = folder / (name if isinstance(values, bytes) else f"{name}.npy")
        before = file.read_bytes()
        for new in (content, to_npy(np.zeros(3)), before[:-1], before[:7], b""):
            file.write_bytes(new)
            seal(folder)
            with pytest.raises(
                InputError, match=rf"^prepared data {folder.name} is damaged: .*--again$"
            ) as caught:
                prepare(recipe)
            assert len(str(caught.value)) < 300, (name, str(caught.value))
        file.write_bytes(before)
        seal(folder)
        assert prepare(recipe).fingerprint == corpus.fingerprint


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_mapped_file_may_be_replaced_but_not_cut_while_it_is_read(kind: str, tmp_path: Path) -> None:
    corpus = prepare(recipe_for(kind, tmp_path))
    loader = Loader(
        corpus.train, global_batch_size=2, micro_batch_size=1, seed=0, attend_across_documents=True
    )
    tokens = Path(corpus.summary["folder"]) / "tokens.bin"
    os.link(tokens, tmp_path / "the one that is mapped")
    (tmp_path / "new").write_bytes(b"")
    (tmp_path / "new").replace(tokens)
    assert loader.load(0).samples == 2
    os.truncate(tmp_path / "the one that is mapped", 0)
    with pytest.raises(
        InputError, match=r"a file of [\d,]+ bytes was cut to 0 while it is in use; run etude"
    ):
        loader.load(0)
