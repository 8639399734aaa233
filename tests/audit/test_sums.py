"""A loss is a sum over its targets: of one factor, with their number, and the same for samples together."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.audit.passes import Tried
from etude.audit.samples import lay_out
from etude.audit.sums import find_no_sum, find_wrong_scale
from etude.audit.targets import read_targets
from etude.data.samples.sample import Sample, predict_next
from etude.engine.batch import DeviceBatch
from etude.engine.precision import choose_precision
from etude.objectives.own import OwnLoss
from tests import parallel

CPU, V = torch.device("cpu"), 64
PARTS = ("whole", "short", "long")


def samples() -> list[Sample]:
    draw = torch.Generator().manual_seed(1)
    return [
        predict_next(torch.randint(1, V, (n + 1,), generator=draw).numpy(), eos_id=0) for n in (40, 20, 60)
    ]


def lay(some: Sequence[Sample]) -> DeviceBatch:
    return lay_out(some, "", CPU, attend=True)


def said(loss: parallel.Loss) -> tuple[list[str], list[str]]:
    """Evidence of a wrong scale, and of no sum."""
    tried = Tried(parallel.Parallel(V), OwnLoss(loss), choose_precision("fp32", CPU, targets_per_step=1), CPU)
    targets = read_targets(tried, lay(samples()), V)
    assert targets is not None
    found = find_wrong_scale(targets), find_no_sum(tried, samples(), lay)
    scale, no_sum = ([each.evidence for each in some] for some in found)
    return scale, no_sum


def _losses(model: nn.Module, batch: Any) -> tuple[list[Tensor], int]:
    """Losses of the targets of each sequence."""
    sizes = list(batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens))
    rows = [torch.split(each.flatten(), sizes) for each in (batch.tokens, batch.labels)]
    scores = [model(each[None])[0] for each in rows[0]]
    return [F.cross_entropy(*each, reduction="none") for each in zip(scores, rows[1])], len(sizes)


def means_of_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    losses, _ = _losses(model, batch)
    return sum(each.mean() for each in losses), batch.labels.numel()


def means_of_rows_as_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Each row counts alike, as may be meant."""
    losses, rows = _losses(model, batch)
    return sum(each.mean() for each in losses), rows


def means_of_tens(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The means of ten targets each, added."""
    losses, _ = _losses(model, batch)
    return sum(part.mean() for each in losses for part in each.split(10)), batch.labels.numel()


def mean_times_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    losses, rows = _losses(model, batch)
    return torch.cat(losses).mean() * rows, rows


def weighed(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Targets with weights from 0.2 to 1, by their ids."""
    losses = torch.cat(_losses(model, batch)[0])
    weights = 0.2 + batch.labels.flatten() / V * 0.8
    return (losses * weights).sum(), batch.labels.numel()


def weighed_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows with weights of their own, and the sum of the weights as their number."""
    losses, _ = _losses(model, batch)
    weights = [1 if len(each) < 30 else 0.1 for each in losses]
    return sum(w * each.sum() for w, each in zip(weights, losses)), sum(
        w * len(each) for w, each in zip(weights, losses)
    )


@pytest.mark.parametrize(
    "loss", [parallel.right, parallel.padded, weighed, weighed_rows, means_of_rows_as_rows]
)
def test_a_sum_over_targets_hears_nothing(loss: parallel.Loss) -> None:
    assert said(loss) == ([], [])


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (
            means_of_rows,
            r"0.025 times; targets are scaled by 0.017 to 0.05, those of a row by 1 / their number",
        ),
        (means_of_tens, r"0.1 times; it is scaled by 0.1 and"),
        (parallel.quarter, r"0.25 times; it is scaled by 0.25 and says 120 targets where it scores 120"),
    ],
)
def test_a_wrong_scale_is_named_if_it_differs_from_row_to_row_too(loss: parallel.Loss, says: str) -> None:
    (scale,), no_sum = said(loss)
    assert says in scale and no_sum == []


def test_a_mean_is_seen_by_the_pull_of_short_and_long_samples() -> None:
    scale, (no_sum,) = said(mean_times_rows)
    assert scale == [] and "lengths pull 1.74 and 0.26 times as much" in no_sum
    assert said(parallel.mean)[1][0].startswith("two samples have the losses")
