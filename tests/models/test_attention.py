"""Attention within rows and within sequences, against the formula."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from etude.models.attention import attend, attend_each
from etude.models.packing import Ends

LENGTHS = (7, 1, 12)
EVERY = pytest.mark.parametrize(("kv_heads", "window"), [(4, None), (2, None), (1, 5), (4, 3), (2, 20)])


def draw(kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Heads (2, 20, 4, 8) of queries, and those of keys and values."""
    generator = torch.Generator().manual_seed(kv_heads)
    q, k, v = (torch.randn(2, 20, heads, 8, generator=generator) for heads in (4, kv_heads, kv_heads))
    return q, k, v


def by_formula(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the tokens that each one sees."""
    place, groups = torch.arange(q.shape[1]), q.shape[2] // k.shape[2]
    k, v = (heads.repeat_interleave(groups, 2) for heads in (k, v))
    back = place[:, None] - place
    is_seen = (back >= 0) & (back < (window or q.shape[1]))
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[3] ** 0.5
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~is_seen, -torch.inf).softmax(-1), v)


@EVERY
def test_each_token_attends_to_those_before_it_within_its_window(kv_heads: int, window: int | None) -> None:
    q, k, v = draw(kv_heads)
    torch.testing.assert_close(attend(q, k, v, window=window, dropout=0.0), by_formula(q, k, v, window))


@EVERY
def test_sequences_that_lie_end_to_end_attend_to_themselves(kv_heads: int, window: int | None) -> None:
    q, k, v = draw(kv_heads)
    together = attend_each(q, k, v, Ends(LENGTHS, 2), window=window, dropout=0.0)
    parts = zip(*(heads.split(LENGTHS, dim=1) for heads in (q, k, v)))
    torch.testing.assert_close(together, torch.cat([by_formula(*part, window) for part in parts], dim=1))


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("length", "window"), [(512, 8), (700, 128), (300, 299), (641, 256), (130, 2)])
def test_blocks_of_a_window_and_their_gradients_are_those_of_a_mask(
    kv_heads: int, length: int, window: int
) -> None:
    generator = torch.Generator().manual_seed(length)
    heads = [
        torch.randn(2, length, n, 8, generator=generator, requires_grad=True) for n in (4, kv_heads, kv_heads)
    ]
    ours, expected = attend(*heads, window=window, dropout=0.0), by_formula(*heads, window)
    assert (ours - expected).abs().max() < 1e-6
    slopes = torch.randn(ours.shape, generator=generator)
    for mine, theirs in zip(
        torch.autograd.grad(ours, heads, slopes), torch.autograd.grad(expected, heads, slopes)
    ):
        assert (mine - theirs).abs().max() < 5e-6


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_work_and_memory_of_a_window_grow_with_the_length(dropout: float) -> None:
    largest = [_largest_tensor(length, 256, dropout) for length in (8_192, 16_384, 32_768)]
    assert largest[2] < 4.1 * largest[0] and largest[1] < 2.1 * largest[0]


def _largest_tensor(length: int, window: int, dropout: float) -> int:
    """Numbers of the largest storage that attention makes, forward and backward; nothing is computed."""
    sizes: list[int] = []

    class Remember(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            tensors = made if isinstance(made, tuple | list) else [made]
            sizes.extend(each.untyped_storage().nbytes() for each in tensors if isinstance(each, Tensor))
            return made

    with FakeTensorMode():
        heads = [torch.empty(1, length, n, 64, requires_grad=True) for n in (4, 2, 2)]
        with Remember():
            attend(*heads, window=window, dropout=dropout).sum().backward()
    return max(sizes)


@pytest.mark.parametrize("window", [None, 6])
def test_dropout_keeps_the_mean_and_changes_with_the_seed(window: int | None) -> None:
    q, k, v = draw(2)
    torch.manual_seed(0)
    drawn = torch.stack([attend(q, k, v, window=window, dropout=0.3) for _ in range(1000)])
    assert not torch.equal(drawn[0], drawn[1])
    assert (drawn.mean(0) - by_formula(q, k, v, window)).abs().max() < 0.25


def test_dropout_drops_weights_of_attention() -> None:
    q, k, v = draw(4)
    torch.manual_seed(0)
    assert not torch.allclose(
        attend(q, k, v, window=None, dropout=0.5), attend(q, k, v, window=None, dropout=0)
    )
