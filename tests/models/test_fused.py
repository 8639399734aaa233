import torch
from torch.nn import functional as F

from etude.models.fused import rotate, swiglu


def test_without_a_gpu_they_are_the_operations_of_torch() -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    assert torch.equal(swiglu(gate, up), F.silu(gate) * up)
    angles = torch.rand(5)
    cos, sin = torch.cat([angles.cos()] * 2)[None], torch.cat([-angles.sin(), angles.sin()])[None]
    x = torch.randn(10)
    # A complex number of the first and the second half, turned by its angle.
    turned = torch.complex(x[:5], x[5:]) * torch.polar(torch.ones(5), angles)
    out = rotate(x.view(1, 1, 1, 10), (cos, sin), torch.float64)
    assert out.dtype == torch.float64
    assert torch.allclose(out.flatten().float(), torch.cat([turned.real, turned.imag]))
