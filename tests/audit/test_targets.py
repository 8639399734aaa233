"""The targets of a loss are read from its gradient alone, and so is its scale."""

import pytest
import torch
from torch import Tensor, nn

from etude.audit.losses import find_wrong_scale
from etude.audit.passes import Tried
from etude.audit.targets import Targets, read_targets
from etude.engine.batch import DeviceBatch
from etude.engine.precision import choose_precision
from etude.objectives.own import OwnLoss
from tests import parallel

CPU = torch.device("cpu")
V = 64


def targets_of(loss: parallel.Loss, precision: str = "fp32") -> Targets:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, V, (1, 30), generator=draw)
    labels = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1)
    labels[0, :5] = -100
    batch = DeviceBatch(tokens=tokens, labels=labels, lengths=(18, 12))
    tried = Tried(
        parallel.Parallel(V), OwnLoss(loss), choose_precision(precision, CPU, targets_per_step=1), CPU
    )
    found = read_targets(tried, batch, V)
    assert found is not None
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_wanted_ids_are_those_of_the_loss(precision: str) -> None:
    found = targets_of(parallel.right, precision)
    assert found.wanted.tolist() == found.asked.tolist() and int(found.scored.sum()) == 25
    assert found.scale == pytest.approx(1, abs=0.01) and found.counted == 25
    assert found.share(found.next) == 1 and found.share(found.read) < 0.2
    assert targets_of(parallel.unshifted, precision).share(found.read) == 1


def test_padding_is_told_from_places_of_the_batch() -> None:
    found = targets_of(parallel.padding_scored)
    assert found.share_unasked(real=False) == pytest.approx(6 / 31)
    assert targets_of(parallel.padded).share_unasked(real=False) == 0


def smooth(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    labels = batch.labels.flatten()
    scores = model(batch.tokens).flatten(0, 1)
    return nn.functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=0.1), 25


def focal(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    losses = nn.functional.cross_entropy(
        model(batch.tokens).flatten(0, 1), batch.labels.flatten(), reduction="none"
    )
    return (losses * (1 - (-losses).exp()) ** 2).sum(), 25


@pytest.mark.parametrize("loss", [smooth, focal])
def test_a_loss_that_is_no_plain_cross_entropy_has_targets_and_no_scale(loss: parallel.Loss) -> None:
    found = targets_of(loss)
    assert found.share(found.next) > 0.9
    assert not list(find_wrong_scale(found))


def squared(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    return model(batch.tokens).square().sum(), 1


def test_another_loss_is_of_nothing_read() -> None:
    assert not targets_of(squared).are_of_reading
    assert targets_of(parallel.twice).are_of_reading
