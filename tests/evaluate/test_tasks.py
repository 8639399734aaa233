"""The loss of samples that a model is not trained on."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from etude.data.loader import iterate_once
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.evaluate.tasks import Score, evaluate
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
