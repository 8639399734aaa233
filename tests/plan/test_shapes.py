"""Shapes, strides and dtypes of results are those of the operations on numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from etude.plan.shapes import META, Shapes
from etude.plan.trace import Tracer, tracing

X, Y = torch.ones(4, 6, 8), torch.ones(6, 8)
HALF, IDS = torch.ones(4, 8, dtype=torch.bfloat16), torch.arange(12).view(3, 4)
CALLS: dict[str, Callable[[], Any]] = {
    "broadcast": lambda: X * Y + 1,
    "of two dtypes": lambda: HALF + torch.ones(4, 8),
    "of a number": lambda: IDS / 3,
    "compared": lambda: X > Y,
    "of a transposed": lambda: torch.sigmoid(X.transpose(0, 2)),
    "where": lambda: torch.where(Y > 0, Y, 0.0),
    "sum": lambda: X.sum(dim=(0, -1), keepdim=True),
    "sum of ids": lambda: IDS.sum().neg(),
    "mean": lambda: X.mean(1),
    "norm": lambda: torch.linalg.vector_norm(HALF, dim=-1, keepdim=True, dtype=torch.float32),
    "largest": lambda: X.amax(dim=1),
    "cat": lambda: torch.cat((X, X[:1]), dim=0),
    "product": lambda: functional.linear(X, Y, torch.ones(6)),
    "embedding": lambda: functional.embedding(IDS, torch.ones(12, 5)),
    "arange": lambda: (torch.arange(7), torch.arange(1, 9, 3), torch.arange(0, 9, 2, dtype=torch.float32)),
    "roll": lambda: X.roll(3, dims=-1),
    "views": lambda: X.transpose(0, 1).flatten(1).unfold(1, 3, 2),
    "softmax": lambda: torch.softmax(X, -1),
    "layer norm": lambda: functional.layer_norm(X, (8,), torch.ones(8), torch.ones(8)),
    "sorted": lambda: X[0, 0].argsort()[:3],
    "picked": lambda: X[:, IDS[0]],
    "picked pairs": lambda: X[IDS[0], IDS[:2, :1]],
    "gathered": lambda: X.gather(1, IDS[None, :, :2] % 6),
    "put": lambda: X.index_put((IDS[0],), torch.ones(4, 6, 8)),
    "log of softmax": lambda: torch.log_softmax(X, 1),
    "summed up": lambda: IDS.cumsum(1),
    "layer norm of halves": lambda: functional.layer_norm(HALF, (8,)),
    "turned": lambda: X.flip(-1),
    "triangles": lambda: (X.tril(), X.transpose(0, 2).triu(1)),
    "full": lambda: torch.full_like(X.transpose(0, 1), 2.0),
    "attention": lambda: functional.scaled_dot_product_attention(
        *(torch.ones(2, 6, 3, 8).transpose(1, 2) for _ in "qkv"), is_causal=True
    ),
    "attention of a part": lambda: functional.scaled_dot_product_attention(
        *torch.ones(2, 3, 6, 24).split(8, -1), is_causal=True
    ),
    "slopes": lambda: _slopes(),  # noqa: PLW0108 - is below
}  # fmt: skip


def _slopes() -> tuple[Tensor, ...]:
    q, k, v, x = (torch.ones(2, 6, 3, 8, requires_grad=True) for _ in range(4))
    heads = (each.transpose(1, 2) for each in (q, k, v))
    made = functional.scaled_dot_product_attention(*heads, is_causal=True)
    made = torch.softmax(functional.layer_norm(made + x.transpose(1, 2)[..., :1], (8,)), -1)
    (made[:, :, 1:].unfold(2, 2, 1).sum() + made[:, 0].log_softmax(-1).sum()).backward()
    assert q.grad is not None and k.grad is not None and v.grad is not None and x.grad is not None
    return q.grad, k.grad, v.grad, x.grad


@pytest.mark.parametrize("name", CALLS)
def test_a_result_has_the_shape_of_the_real_one(name: str) -> None:
    real = CALLS[name]()
    for _ in range(2):  # the second answer is remembered
        with tracing(Tracer(torch.device("cpu")), torch.nn.Identity()):
            made = CALLS[name]()
        for ours, theirs in zip(
            made if isinstance(made, tuple) else (made,), real if isinstance(real, tuple) else (real,)
        ):
            assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)


def test_a_call_like_an_earlier_one_has_its_answer() -> None:
    shapes, x = Shapes(), torch.ones(3, 4, device=META)
    first, second = (shapes(torch.ops.aten.mul.Tensor, (x, x), {}) for _ in range(2))
    assert first is not second and first.shape == second.shape
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
    view = shapes(torch.ops.aten.view.default, (x, [12]), {})
    assert view.untyped_storage()._cdata == x.untyped_storage()._cdata
