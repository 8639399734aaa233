"""Targets that count by what they are as code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.lexer import KINDS
from etude.data.tokenize import train_tokenizer
from etude.data.weights import choose_weights
from etude.engine.objectives import linear_cross_entropy
from etude.errors import EtudeError
from etude.plan import make_plan
from etude.run import Training
from etude.start import Options
from tests.bases import write_instructions, write_pairs, write_qwen2
from tests.test_masked import masked
from tests.test_seq2seq import seq2seq

CODE = 'def total(value):\n    return "é" + value  # sum\n'


def test_each_kind_has_its_weight_wherever_the_text_begins() -> None:
    tokenizer = train_tokenizer([CODE], 257)  # every byte is a token
    numbers = {kind: float(index + 2) for index, kind in enumerate(KINDS)}
    weights = choose_weights(tokenizer, numbers)  # type: ignore[arg-type]
    ids = tokenizer.encode(CODE)
    found = weights.of(ids, np.ones(len(ids), dtype=np.bool_))
    data = CODE.encode()
    expected = {"def": "keyword", "total": "identifier", "(": "bracket", "return": "keyword", "+": "operator"}
    for word, kind in {**expected, '"é"': "string", "# sum": "comment"}.items():
        at = data.index(word.encode())
        assert set(found[at : at + len(word.encode())]) == {numbers[kind]}, word
    half = np.arange(len(ids)) >= data.index(b"return")
    again = weights.of(ids, half)
    assert (again[~half] == 1).all() and (again[half] == found[half]).all()


def test_a_stretch_that_cuts_a_character_weighs_one() -> None:
    tokenizer = train_tokenizer([CODE], 257)
    ids = tokenizer.encode("é x")[1:]
    weights = choose_weights(tokenizer, {"identifier": 5.0})
    assert (weights.of(ids, np.ones(len(ids), dtype=np.bool_)) == 1).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_losses_and_gradients_are_those_of_torch(smoothing: float) -> None:
    torch.manual_seed(2)
    hidden, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((1300, 8), (33, 8), (33,)))
    labels, each = torch.randint(0, 33, (1300,)), torch.rand(1300)
    loss = linear_cross_entropy(hidden, weight, labels, bias=bias, weights=each, label_smoothing=smoothing)
    ours = torch.autograd.grad(loss, (hidden, weight, bias))
    losses = torch.nn.functional.cross_entropy(
        hidden @ weight.T + bias, labels, reduction="none", label_smoothing=smoothing
    )
    expected = (losses * each).sum()
    assert torch.allclose(loss, expected)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, (hidden, weight, bias))):
        assert torch.allclose(mine, theirs, atol=1e-4)


def losses_of(recipe: Any, runs: Path) -> list[float]:
    return [float(step.measured[0] / step.measured[1]) for step in Training(recipe, Options(runs=runs))]


@pytest.mark.parametrize("kind", ["pairs", "masked", "answers"])
def test_weights_change_losses_and_micro_batches_do_not(kind: str, tmp_path: Path) -> None:
    few = {"train.steps": 3, "data.validation": "none"}
    weights = {"loss.token_weights": {"identifier": 3.0, "number": 0.0}}
    if kind == "answers":
        rows, base = write_instructions(tmp_path / "rows.jsonl", 20), write_qwen2(tmp_path / "base")
        causal = {"data.train": [{"path": str(rows)}], "train.objective": "causal", "train.seq_len": 64}
        recipe = masked(rows, base, {**few, **causal})
    elif kind == "pairs":
        recipe = seq2seq(write_pairs(tmp_path / "rows.jsonl", 30), None, {**few, "evaluate.answers": 0})
    else:
        recipe = masked(write_pairs(tmp_path / "rows.jsonl", 30), None, {**few, "data.train.0.field": "source"})
    plain = losses_of(recipe, tmp_path / "plain")
    ones = losses_of(recipe.with_changes({"loss.token_weights": {"identifier": 1.0}}), tmp_path / "ones")
    whole = losses_of(recipe.with_changes(weights), tmp_path / "whole")
    parts = losses_of(recipe.with_changes({**weights, "train.micro_batch_size": 2}), tmp_path / "parts")
    assert ones == pytest.approx(plain, rel=1e-6)
    assert whole != pytest.approx(plain, rel=1e-3)
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss.token_weights": {"identifer": 2.0}}, r"token_weights.*must be"),
        ({"loss.token_weights": {"identifier": -1.0}}, r"token_weights.*must be at least 0"),
    ],
)
def test_bad_weights_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(EtudeError, match=said):
        make_plan(seq2seq(write_pairs(tmp_path / "rows.jsonl", 30), None, changes))
