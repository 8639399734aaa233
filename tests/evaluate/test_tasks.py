"""The loss of samples that a model is not trained on."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from etude.data.loader import iterate_once
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.evaluate.tasks import Score, evaluate, join
from etude.models.build import build
from etude.objectives.causal import Causal
from etude.plan import make_plan
from etude.recipe.schema import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_loss_is_a_sum_over_targets_however_samples_lie_in_batches(
    size: int, tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    plan = make_plan(make_recipe({"data.sample": "document", "model.dropout": 0.5}))
    model, _ = build(plan.recipe, plan.model, None, torch.float32)
    split = plan.corpus.validation
    assert split is not None and plan.corpus.token_bytes is not None
    model.train()
    precision, noise = choose_precision("fp32", CPU, targets_per_step=1), torch.get_rng_state()
    batches = iterate_once(split, size, attend_across_documents=False)
    score = evaluate(model, batches, Causal(), precision, World(CPU), plan.corpus.token_bytes)
    assert model.training and torch.equal(torch.get_rng_state(), noise)
    total, targets, size_bytes = 0.0, 0, 0
    model.eval()
    with torch.no_grad():
        for sample in (split.sample(index) for index in range(len(split))):
            labels = torch.tensor(sample.labels)
            logits = model.logits(torch.tensor(sample.tokens)[None])[0]
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            targets += len(labels)
            size_bytes += int(plan.corpus.token_bytes[sample.labels].sum())
    assert score.targets == targets and score.loss == pytest.approx(total / targets, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(total / math.log(2) / size_bytes, rel=1e-5)


def test_no_targets_have_no_loss_and_a_huge_loss_an_infinite_perplexity() -> None:
    model = torch.nn.Linear(1, 1)
    precision = choose_precision("fp32", CPU, targets_per_step=1)
    score = evaluate(model, [], Causal(), precision, World(CPU))
    assert math.isnan(score.loss) and score.targets == 0 and score.bits_per_byte is None
    assert Score(800.0, 1, None).perplexity == math.inf
    assert Score(2.0, 1, None).perplexity == pytest.approx(math.e**2)


@pytest.mark.parametrize("size", [1, 2])
def test_the_standard_error_is_that_of_resampled_rows(
    size: int, tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    plan = make_plan(make_recipe({"data.sample": "document", "data.validation_ratio": 0.5}))
    model, _ = build(plan.recipe, plan.model, None, torch.float32)
    split, precision = plan.corpus.validation, choose_precision("fp32", CPU, targets_per_step=1)
    assert split is not None and len(split) >= 16
    batches = iterate_once(split, size, attend_across_documents=False)
    score = evaluate(model, batches, Causal(), precision, World(CPU))
    rows = evaluate(
        model, iterate_once(split, 1, attend_across_documents=False), Causal(), precision, World(CPU)
    ).parts
    assert rows is not None and score.error is not None
    draw = np.random.default_rng(17)
    resampled = [rows[draw.integers(len(rows), size=len(rows))].sum(0) for _ in range(4000)]
    assert score.error == pytest.approx(
        np.std([each[0] / each[1] for each in resampled]), rel=0.35 if size > 1 else 0.1
    )


def test_few_batches_have_no_standard_error() -> None:
    pairs = [torch.tensor([2.0 + index, 1.0]) for index in range(7)]
    assert join(pairs, [0] * 7, World(CPU)).error is None
    same = [torch.tensor([2.0, 1.0])] * 9
    assert join(same, [0] * 9, World(CPU)).error == 0.0
