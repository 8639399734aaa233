"""The use of each document, and labels over the classes of a model, by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.corpus import Corpus, choose_uses, label_notes, lay_out
from etude.data.labels import Layout
from etude.data.prepared import prepare
from etude.data.samples.labelled import Labelled
from etude.recipe.load import recipe_from


def prepared(
    tmp_path: Path,
    train: list[Any],
    validation: list[Any] | None = None,
    *,
    vocabulary: int = 300,
    **more: Any,
) -> Corpus:
    tmp_path.mkdir(exist_ok=True)
    for name, labels in (("train", train), ("valid", validation or [])):
        rows = [{"text": f"{name} {index}", "label": label} for index, label in enumerate(labels)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"label": "label", **more.pop("source", {})}
    data: dict[str, Any] = {"train": [{"path": str(tmp_path / "train.jsonl"), **source}], **more}
    if validation is not None:
        data["validation"] = [{"path": str(tmp_path / "valid.jsonl"), **source}]
    values = {
        "name": "labels",
        "model": {"kind": "encoder", "n_layer": 1, "n_embd": 16, "n_head": 2},
        "tokenizer": {"train_vocab_size": vocabulary},
        "data": data,
        "train": {
            "objective": "classification",
            "steps": 1,
            "seq_len": 16,
            "global_batch_size": 4,
            "device": "cpu",
        },
    }
    return prepare(recipe_from(values))


def test_a_label_without_rows_in_a_split_is_named(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, ["a", "b", "c"] * 4, ["b", "c"])
    assert label_notes(corpus) == [
        "no validation row has the label a; it counts as 0 in macro figures on validation rows"
    ]
    assert corpus.summary["notes on labels"] == [{"note": note} for note in label_notes(corpus)]


def test_a_label_whose_only_row_is_held_out_is_named(tmp_path: Path) -> None:
    for number in range(8):  # one of these names falls into the share that is held out
        corpus = prepared(tmp_path, [*["a", "b"] * 8, f"rare {number}"], validation_ratio=0.4)
        words = f"no training row has the label rare {number}, as all such rows are held out"
        if words in label_notes(corpus):
            return
        (tmp_path / "train.jsonl").unlink()
    text = " ".join(label_notes(corpus))
    assert "no validation row has the label rare" in text


def test_labels_laid_over_a_model_keep_their_meaning_and_change_the_fingerprint(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, ["a", "b"] * 6)
    laid = lay_out(corpus, Layout(("b", "c", "a"), (2, 0), 2, "as the model has them"))
    assert laid.labels is not None and laid.labels.names == ("b", "c", "a")
    assert laid.labels.notes[-1] == "as the model has them" and laid.fingerprint != corpus.fingerprint
    for ours, theirs in ((corpus.train, laid.train), (corpus.validation, laid.validation)):
        assert isinstance(ours, Labelled) and isinstance(theirs, Labelled)
        for before, after in zip(ours.classes, theirs.classes):
            assert ["ab"[at] for at in np.flatnonzero(before)] == ["bca"[at] for at in np.flatnonzero(after)]
    same = lay_out(corpus, Layout(("a", "b"), (0, 1), 2, ""))
    assert same.fingerprint == corpus.fingerprint and same.train is corpus.train


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=2, max_size=12))
def test_a_document_alone_in_its_source_and_unit_is_cut_and_units_stay_together(
    documents: list[tuple[int, int]],
) -> None:
    recipe = recipe_from(
        {
            "name": "x", "model": {"n_layer": 1, "n_embd": 16, "n_head": 2},
            "tokenizer": {"train_vocab_size": 300}, "train": {"steps": 1, "seq_len": 8, "global_batch_size": 1},
            "data": {"train": [{"path": name} for name in "abc"], "validation_ratio": 0.3},
        }
    )  # fmt: skip
    sources, units = np.array(documents).T
    hashes = np.random.default_rng(0).integers(0, 256, (len(units), 16), dtype=np.uint8)
    arrays = {"sources": sources, "units": units, "hashes": hashes}
    alone = [
        sum(source == other for other, _ in documents) == 1 == sum(unit == other for _, other in documents)
        for source, unit in documents
    ]
    if not any(alone) and len(set(units.tolist())) == 1:
        with pytest.raises(Exception, match="none of the"):
            choose_uses(recipe, arrays)
        return
    uses, cut = choose_uses(recipe, arrays)
    assert cut.tolist() == alone and not uses[cut].any()
    assert all(len(set(uses[(units == unit) & ~cut].tolist())) <= 1 for unit in set(units.tolist()))
    whole = len(set(units[~cut].tolist()))
    assert (uses == 1).any() == (whole > 1 or (whole == 1 and not cut.any()))


def test_held_out_rows_are_named_alike_for_other_training_rows_orders_and_tokenizers(tmp_path: Path) -> None:
    first = prepared(tmp_path / "a", ["x", "y", "x"], ["y", "x"]).held_out
    more = prepared(tmp_path / "b", ["x", "y", "x", "z"], ["y", "x"]).held_out
    smaller = prepared(tmp_path / "c", ["x", "y", "x"], ["y", "x"], vocabulary=260).held_out
    assert first == more == smaller and list(first) == ["validation"]
    other_label = prepared(tmp_path / "d", ["x", "y", "x"], ["y", "y"]).held_out
    assert other_label != first
    chosen = prepared(tmp_path / "e", ["x", "y"] * 10, validation_ratio=0.2).held_out
    assert prepared(tmp_path / "f", ["x", "y"] * 10, validation_ratio=0.4).held_out != chosen
