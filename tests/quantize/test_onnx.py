"""ONNX exports: onnxruntime computes what transformers computes, for any number of texts of any length."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.batch import NumpyBatch
from etude.errors import FaultError, InputError
from etude.export import export
from etude.quantize.onnx import export_onnx, pad_together
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus, write_encoder, write_labelled
from tests.recipes import classification, masked, tiny

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        yield tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def labels(folder: Path) -> Run:
    """A classifier from scratch, a BERT of two kinds of tokens."""
    recipe = classification(write_labelled(folder / "labels.jsonl"))
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def logits(out: Path, rows: list[list[int]], pad_id: int) -> tuple[Any, dict[str, str]]:
    """Logits of rows of ids in one padded batch, and the metadata of the file."""
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    batches = [NumpyBatch(tokens=np.array([row]), labels=np.zeros((1, 0), np.int64)) for row in rows]
    feeds = pad_together(batches, [each.name for each in session.get_inputs()], pad_id)
    return session.run(None, feeds)[0], session.get_modelmeta().custom_metadata_map


ROWS = [[5, 6, 7], list(range(10, 30)), [9] * 11, [7]]


def test_a_classifier_computes_the_logits_of_transformers(labels: Run, folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    out = tmp_path / "out"
    result = export_onnx(str(labels.path), out)
    assert result.difference <= 1e-4 and result.samples == 12
    theirs = AutoModelForSequenceClassification.from_pretrained(
        export(str(labels.path), "hf", tmp_path / "hf")
    ).eval()
    found, about = logits(out, ROWS, theirs.config.pad_token_id)
    for row, one in zip(ROWS, found):
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([row])).logits[0].numpy()
        np.testing.assert_allclose(one, expected, atol=1e-4)
        np.testing.assert_allclose(logits(out, [row], 0)[0][0], expected, atol=1e-4)
    assert json.loads(about["labels"]) == [theirs.config.id2label[at] for at in range(3)]
    assert about["problem_type"] == "single_label_classification"
    assert {"model.onnx", "README.md", "tokenizer.json", "config.json"} <= {
        each.name for each in out.iterdir()
    }
    assert not (out / "model.safetensors").exists()


def test_the_lines_of_the_card_name_a_label(
    labels: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_onnx(str(labels.path), out)
    card = (out / "README.md").read_text()
    assert "## ONNX" in card and "logits of onnxruntime within" in card
    lines = card.split("```python\n")[1].split("```")[0]
    said: list[str] = []
    monkeypatch.chdir(out)
    exec(lines, {"print": said.append})
    assert said and said[0] in {"sum", "out", "none"}


def test_a_masked_roberta_computes_the_logits_of_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    base = write_encoder(folder / "roberta", masked=True)
    recipe = masked(write_labelled(folder / "texts.jsonl"), base, {"train.steps": 2})
    run = run_recipe(recipe, Options(runs=folder / "runs")).run
    out = tmp_path / "out"
    assert export_onnx(str(run.path), out).difference <= 1e-4
    theirs = AutoModelForMaskedLM.from_pretrained(export(str(run.path), "hf", tmp_path / "hf")).eval()
    found, about = logits(out, ROWS, theirs.config.pad_token_id)
    for row, one in zip(ROWS, found):
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([row])).logits[0].numpy()
        np.testing.assert_allclose(one[: len(row)], expected, atol=1e-3)
    assert "labels" not in about


def test_a_decoder_is_refused_and_forms_that_serve_it_are_named(folder: Path, tmp_path: Path) -> None:
    values = tiny(write_corpus(folder / "corpus.jsonl", 60), {"train.steps": 2})
    run = run_recipe(recipe_from(values), Options(runs=folder / "runs")).run
    with pytest.raises(InputError, match="has a causal language model; use --to gguf, int8 or hf"):
        export_onnx(str(run.path), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_logits_leave_nothing(labels: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.quantize.onnx.MOST_DIFFERENCE", 0.0)
    with pytest.raises(FaultError, match=r"gives logits that differ by .* and 0 is allowed"):
        export_onnx(str(labels.path), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(
    labels: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        InputError, match=r'needs the package onnxscript; pip install "etude-workbench\[onnx\]"'
    ):
        export_onnx(str(labels.path), tmp_path / "out")
