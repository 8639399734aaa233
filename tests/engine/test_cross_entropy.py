"""The chunked cross-entropy against that of torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from etude.engine.cross_entropy import CHUNK_ROWS, linear_cross_entropy


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 3]),
    st.integers(2, 40),
    st.integers(0, 99),
)
def test_chunked_loss_and_gradients_are_those_of_torch(rows: int, vocabulary: int, seed: int) -> None:
    torch.manual_seed(seed)
    hidden = torch.randn(rows, 8, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(vocabulary, 8).requires_grad_()
    labels = torch.randint(vocabulary, (rows,))
    ours = linear_cross_entropy(hidden, weight, labels)
    theirs = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for mine, other in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)), torch.autograd.grad(3 * theirs, (hidden, weight))
    ):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [3, 2 * CHUNK_ROWS + 3])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss_and_gradients_are_those_of_torch(rows: int, with_bias: bool, smoothing: float) -> None:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(rows, 8).requires_grad_(), torch.randn(30, 8).requires_grad_()
    labels, weights = torch.randint(30, (rows,)), torch.rand(rows)
    weights[1] = 0.0
    bias = torch.randn(30).requires_grad_() if with_bias else None
    inputs = [hidden, weight] + ([bias] if bias is not None else [])
    ours = linear_cross_entropy(hidden, weight, labels, bias=bias, label_smoothing=smoothing, weights=weights)
    logits = F.linear(hidden, weight, bias)
    each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    ours, theirs = ours / weights.sum(), (weights * each).sum() / weights.sum()
    assert torch.allclose(ours, theirs, rtol=1e-5)
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs)):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)
    ones = linear_cross_entropy(hidden, weight, labels, bias=bias, weights=torch.ones(rows))
    assert torch.equal(ones, linear_cross_entropy(hidden, weight, labels, bias=bias))


def test_the_gradient_is_exact_in_double_precision() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4).double().requires_grad_(), torch.randn(7, 4).double().requires_grad_()
    labels = torch.randint(7, (5,))
    loss = linear_cross_entropy(hidden, weight, labels)
    reference = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_gradients_keep_the_dtype_of_the_weights(dtype: torch.dtype) -> None:
    hidden = torch.randn(10, 8).to(dtype).requires_grad_()
    weight = torch.randn(20, 8).requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(hidden, weight, torch.randint(20, (10,)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == dtype
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.parametrize("vocabulary", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_head_that_is_filled_up_in_half_precision_gives_the_loss_and_gradients_of_its_own_rows(
    vocabulary: int, smoothing: float
) -> None:
    torch.manual_seed(vocabulary)
    hidden, weight = torch.randn(50, 16).requires_grad_(), torch.randn(vocabulary, 16).requires_grad_()
    labels = torch.randint(vocabulary, (50,))
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_cross_entropy(hidden, weight, labels, label_smoothing=smoothing)
    theirs = F.cross_entropy(hidden @ weight.T, labels, reduction="sum", label_smoothing=smoothing)
    assert ours.item() == pytest.approx(theirs.item(), rel=2e-2, abs=1e-5)
    for mine, other in zip(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight))
    ):
        assert mine.shape == other.shape and (mine - other).norm() <= 0.02 * other.norm() + 1e-5


def test_without_gradients_none_are_computed() -> None:
    with torch.no_grad():
        loss = linear_cross_entropy(torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 2]))
    assert not loss.requires_grad


def test_no_targets_cost_nothing() -> None:
    hidden = torch.randn(0, 4, requires_grad=True)
    loss = linear_cross_entropy(
        hidden, torch.randn(5, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
    )
    loss.backward()
    assert loss.item() == 0
