"""Attention in parts, against attention of each sample alone."""

import pytest
import torch
from torch import Tensor

from etude.models.attention import attend
from etude.models.cascade import attend_parts
from etude.prefixes import Part

# Two tokens that go on in three ways; one of these, in two.
PARTS = (
    Part(0, 2, 0, 2, True), Part(2, 5, 2, 5, True), Part(5, 6, 5, 6, True), Part(6, 40, 6, 40, True),
    Part(40, 43, 40, 43, True), Part(2, 43, 0, 2, False), Part(5, 40, 2, 5, False),
)  # fmt: skip
PATHS = ([*range(5), 5], [*range(5), *range(6, 40)], [0, 1, 40, 41, 42])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_parts_give_the_output_and_gradients_of_each_path(kv_heads: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(kv_heads)
    heads = [torch.randn(2, 43, count, 8, generator=generator) for count in (4, kv_heads, kv_heads)]
    wanted = torch.randn(2, 50, 4, 8, generator=generator)

    def take(*parts: Tensor) -> list[Tensor]:
        return [torch.cat([part[:, path] for path in PATHS], dim=1) for part in parts]

    results = []
    for is_cascade in (True, False):
        wide = dtype if is_cascade else torch.float64
        q, k, v = (each.detach().to(wide).requires_grad_() for each in heads)
        if is_cascade:
            (out,) = take(attend_parts(q, k, v, PARTS))
        else:
            alone = [attend(q[:, path], k[:, path], v[:, path], window=None, dropout=0.0) for path in PATHS]
            out = torch.cat(alone, dim=1)
        (out * wanted.to(out.dtype)).sum().backward()
        results.append([out, q.grad, k.grad, v.grad])
    bound = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 0.03}[dtype]
    for found, expected in zip(*results):
        assert found is not None and expected is not None and found.dtype == dtype
        assert (found - expected).abs().max() < bound * expected.abs().max()


def test_queries_of_some_places_see_what_lies_before_them() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 9, 2, 8, generator=draw) for _ in range(3))
    parts = (Part(0, 2, 3, 5, True), Part(2, 3, 8, 9, True), Part(0, 2, 0, 3, False), Part(2, 3, 0, 8, False))
    expected = attend(q, k, v, window=None, dropout=0.0)[:, [3, 4, 8]]
    torch.testing.assert_close(attend_parts(q[:, [3, 4, 8]], k, v, parts), expected)
