"""A loss that reads its targets, or what is behind them, is seen from the gradient by embeddings alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.audit.passes import Tried
from etude.audit.readings import Reading, find_read, find_wrong_readings
from etude.audit.samples import lay_out
from etude.data.samples.sample import Sample, predict_next
from etude.engine.precision import choose_precision
from etude.objectives.own import OwnLoss
from tests import parallel

CPU = torch.device("cpu")
V = 64


def sample(prompt: int = 0) -> Sample:
    window = torch.randint(1, V // 2, (41,), generator=torch.Generator().manual_seed(1)).numpy()
    made = predict_next(window, eos_id=0)
    labels = made.labels.copy()
    labels[:prompt] = -100
    return replace(made, labels=labels)


def reading(loss: parallel.Loss, model: nn.Module | None = None, *, prompt: int = 0) -> Reading | None:
    precision = choose_precision("fp32", CPU, targets_per_step=1)
    tried = Tried(model or parallel.Parallel(V), OwnLoss(loss), precision, CPU)
    return find_read(
        tried, sample(prompt), [40, 45, 50, 55], lambda some: lay_out(some, "", CPU, attend=True)
    )


def kinds(found: Reading | None) -> list[str]:
    assert found is not None
    return [each.kind for each in find_wrong_readings(found, is_copied=False)]


def scored(scores: Tensor, batch: Any) -> tuple[Tensor, Any]:
    labels = batch.labels.flatten()
    return F.cross_entropy(scores.flatten(0, 1), labels, reduction="sum"), (labels != -100).sum()


def with_penalty(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    scores = model(batch.tokens)
    loss, targets = scored(scores, batch)
    return loss + 0.1 * scores.logsumexp(-1).square().sum(), targets


def on_the_left(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows filled up on the left."""
    return scored(model(F.pad(batch.tokens, (24, 0)))[:, 24:], batch)


def by_targets(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Each place reads the target before it, which is the token there."""
    read = torch.cat((batch.tokens[:, :1], batch.labels[:, :-1].clamp(min=0)), dim=1)
    return scored(model(read), batch)


def of_a_mean(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    loss, targets = scored(model(batch.tokens), batch)
    return loss / targets, 1


def with_places(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Vectors of places are looked up as well, of places with the numbers of the ids."""
    table = torch.nn.Parameter(torch.randn(V, V) * 0.1)
    return scored(model(batch.tokens) + F.embedding(torch.arange(batch.tokens.shape[1]) + 20, table), batch)


@pytest.mark.parametrize("prompt", [0, 20])
@pytest.mark.parametrize(
    "loss",
    [parallel.right, parallel.padded_to_128, with_penalty, on_the_left, by_targets, of_a_mean, with_places],
)
def test_a_right_loss_reads_nothing_that_it_may_not(loss: parallel.Loss, prompt: int) -> None:
    found = reading(loss, prompt=prompt)
    assert kinds(found) == [] and found is not None and max(found.target, found.behind) < 1e-4


def gives_labels(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    return scored(model(batch.labels.clamp(min=0)), batch)


def adds_labels(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    return scored(model(batch.tokens) + model(batch.labels.clamp(min=0)), batch)


def puts_labels_in_front(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    size = batch.labels.shape[1]
    return scored(model(torch.cat((batch.labels.clamp(min=0), batch.tokens), dim=1))[:, size:], batch)


def both_ways(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    return scored(model(batch.tokens) + model(batch.tokens.flip(1)).flip(1), batch)


def smooths(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    scores = model(batch.tokens)
    return scored((scores + scores.roll(-1, 1)) / 2, batch)


def centred(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    scores = model(batch.tokens)
    return scored(scores - scores.mean(dim=1, keepdim=True), batch)


@pytest.mark.parametrize("prompt", [0, 20])
@pytest.mark.parametrize(
    "loss", [gives_labels, adds_labels, puts_labels_in_front, both_ways, smooths, centred]
)
def test_what_a_loss_may_not_read_is_seen(loss: parallel.Loss, prompt: int) -> None:
    found = reading(loss, prompt=prompt)
    assert kinds(found) == ["future_visible"] and found is not None
    assert (found.target > 0.01) == (loss in (gives_labels, adds_labels, puts_labels_in_front))


def test_targets_read_at_their_own_places_are_not_shifted() -> None:
    found = reading(gives_labels)
    assert found is not None
    assert [each.kind for each in find_wrong_readings(found, is_copied=True)] == ["labels_not_shifted"]


def test_a_frozen_embedding_is_looked_through() -> None:
    model = parallel.Parallel(V)
    model.embed.weight.requires_grad_(requires_grad=False)
    assert kinds(reading(both_ways, model)) == ["future_visible"]
    assert model.embed.weight.grad is None and not model.embed.weight.requires_grad


def test_without_an_embedding_nothing_is_said() -> None:
    class Product(parallel.Parallel):
        def forward(self, tokens: Tensor) -> Tensor:
            x = F.one_hot(tokens, V).float() @ self.embed.weight
            scores: Tensor = self.head(self.norm(self.blocks[0](x)))
            return scores

    assert reading(parallel.right, Product(V)) is None
