"""Tokens that reach an answer are found by changing them, whatever the layout of the batch."""

import pytest
import torch
from torch import Tensor, nn

from etude.audit.leaks import Leak, find_chance, find_future, find_neighbours
from etude.audit.passes import Tried
from etude.engine.batch import DeviceBatch
from etude.engine.precision import choose_precision
from etude.objectives.own import OwnLoss
from tests import parallel

CPU = torch.device("cpu")
V = 64


def tried(model: nn.Module, loss: parallel.Loss = parallel.right) -> Tried:
    return Tried(model, OwnLoss(loss), choose_precision("fp32", CPU, targets_per_step=1), CPU)


def make_batch(*lengths: int, seed: int = 1) -> DeviceBatch:
    tokens = torch.randint(1, V, (1, sum(lengths)), generator=torch.Generator().manual_seed(seed))
    if len(set(lengths)) == 1:
        tokens = tokens.view(len(lengths), -1)
    return DeviceBatch(tokens=tokens, labels=tokens, lengths=None if len(tokens) > 1 else lengths)


class Ahead(parallel.Parallel):
    """A model that sees some places on, but never over the border of a block."""

    def __init__(self, block: int) -> None:
        super().__init__(V)
        self.block = block

    def forward(self, tokens: Tensor) -> Tensor:
        blocks = nn.functional.pad(self.embed(tokens), (0, 0, 0, -tokens.shape[1] % self.block))
        mixed = blocks.unflatten(1, (-1, self.block)).flip(2).cumsum(2).flip(2).flatten(1, 2)
        scores: Tensor = self.head(mixed[:, : tokens.shape[1]])
        return scores


@pytest.mark.parametrize("block", [2, 4, 16, 32, 128])
def test_a_look_within_blocks_is_seen_too(block: int) -> None:
    found = find_future(tried(Ahead(block)), make_batch(70))
    assert found is not None and found.is_fault and found.count <= block


@pytest.mark.parametrize("length", [4, 5, 7, 8, 9, 33, 64, 70])
def test_a_causal_model_passes_at_every_length(length: int) -> None:
    found = find_future(tried(parallel.Parallel(V)), make_batch(length))
    assert found is not None and (found.moved, found.count) == (0, 0) and found.reach > 0
    seen = find_future(tried(parallel.Parallel(V, is_causal=False)), make_batch(length))
    assert seen is not None and seen.is_fault and seen.count == seen.of


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_noise_that_stays_on_in_evaluation_is_measured(share: float) -> None:
    model = parallel.Parallel(V).eval()
    model.norm.register_forward_hook(lambda module, given, out: nn.functional.dropout(out, share, True))
    moved = find_chance(tried(model), make_batch(9))
    assert (moved > 0.02) == bool(share) and (share or moved == 0)


def test_few_tokens_tell_nothing() -> None:
    assert find_future(tried(parallel.Parallel(V)), make_batch(3)) is None
    assert find_neighbours(tried(parallel.Parallel(V)), make_batch(8)) is None


@pytest.mark.parametrize("lengths", [(9, 9), (5, 9), (5, 9, 7)])
def test_samples_of_a_batch_are_apart(lengths: tuple[int, ...]) -> None:
    batch = make_batch(*lengths)
    apart = find_neighbours(tried(parallel.Parallel(V)), batch)
    assert apart is not None and not apart.is_fault and apart.count == 0

    class Mixed(parallel.Parallel):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens.view(1, -1)).view(*tokens.shape, -1)

    seen = find_neighbours(tried(Mixed(V), parallel.packed), batch)
    assert seen is not None and seen.is_fault


def test_a_model_that_looks_at_no_other_token_tells_nothing() -> None:
    class Alone(parallel.Parallel):
        def forward(self, tokens: Tensor) -> Tensor:
            scores: Tensor = self.head(self.embed(tokens))
            return scores

    found = find_future(tried(Alone(V)), make_batch(20))
    assert found == Leak(0.0, 0.0, 0, found.of if found else 0)


def test_answers_that_move_by_themselves_are_no_leak() -> None:
    class Noisy(parallel.Parallel):
        def forward(self, tokens: Tensor) -> Tensor:
            scores: Tensor = super().forward(tokens)
            return scores + 1e-3 * torch.randn_like(scores)

    found = find_future(tried(Noisy(V)), make_batch(40))
    assert found is not None and found.moved > 0 and not found.is_fault
