"""The Triton kernels of the decoder against torch, on a machine with a GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
pytest.importorskip("triton")

from etude.models.fused import rotate, swiglu

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


@DTYPES
def test_swiglu_and_its_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up, slope = (3 * torch.randn(3, 7, 333, device="cuda", dtype=dtype) for _ in range(3))
    exact = [each.double().requires_grad_() for each in (gate, up)]
    (F.silu(exact[0]) * exact[1]).backward(slope.double())
    gate.requires_grad_(), up.requires_grad_()
    swiglu(gate, up).backward(slope)
    assert close(swiglu(gate, up), F.silu(exact[0]) * exact[1], dtype)
    assert close(gate.grad, exact[0].grad, dtype) and close(up.grad, exact[1].grad, dtype)


@DTYPES
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("width", [64, 96, 128])
def test_heads_are_turned_as_torch_turns_them(dtype: torch.dtype, rows: int, width: int) -> None:
    torch.manual_seed(0)
    x, slope = (torch.randn(3, 50, 5, width, device="cuda", dtype=dtype) for _ in range(2))
    angles = torch.rand(rows, 50, 1, width // 2, device="cuda") * 100
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat((-angles.sin(), angles.sin()), -1)
    exact = x.double().requires_grad_()
    turned = exact * cos + exact.roll(width // 2, dims=-1) * sin
    turned.backward(slope.double())
    x.requires_grad_()
    out = rotate(x, (cos, sin), dtype)
    out.backward(slope)
    assert out.dtype == dtype and close(out, turned, dtype) and close(x.grad, exact.grad, dtype)
    assert rotate(x, (cos, sin)).dtype == torch.float32


def close(found: Tensor | None, exact: Tensor | None, dtype: torch.dtype) -> bool:
    """True if each figure is the exact one but for rounding to a dtype, of sums of larger figures too."""
    assert found is not None and exact is not None
    eps = torch.finfo(dtype).eps
    return bool(((found.double() - exact).abs() <= 4 * eps * exact.abs().max()).all())
