"""Attention within rows and within sequences, against the formula."""

import pytest
import torch
from torch import Tensor

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
    together = attend_each(q, k, v, LENGTHS, Ends(LENGTHS * 2), window=window, dropout=0.0)
    parts = zip(*(heads.split(LENGTHS, dim=1) for heads in (q, k, v)))
    torch.testing.assert_close(together, torch.cat([by_formula(*part, window) for part in parts], dim=1))


def test_dropout_drops_weights_of_attention() -> None:
    q, k, v = draw(4)
    torch.manual_seed(0)
    assert not torch.allclose(
        attend(q, k, v, window=None, dropout=0.5), attend(q, k, v, window=None, dropout=0)
    )
