"""A trace takes the attention that the device would take, and stand-ins leave nothing behind."""

import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from etude.engine import cross_entropy
from etude.plan.stand_ins import standing_in
from etude.plan.trace import Tracer, tracing
from etude.plan.workspace import workspace_of

CUDA = torch.device("cuda")


def made_by(
    device: torch.device, heads: int, dtype: torch.dtype, *, masked: bool, dropout: float = 0.0
) -> set[str]:
    tracer = Tracer(device, workspace_of(device))
    with tracing(tracer, torch.nn.Identity()):
        q = torch.ones(2, 4, 16, 8, dtype=dtype).requires_grad_()
        k, v = (torch.ones(2, heads, 16, 8, dtype=dtype) for _ in range(2))
        mask = torch.ones(16, 16, dtype=torch.bool) if masked else None
        out: Tensor = functional.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=not masked, enable_gqa=heads != 4
        )
        assert out.shape == (2, 4, 16, 8) and out.dtype == dtype
        out.sum().backward()  # type: ignore[no-untyped-call]
    return {block.what.split()[0] for block in tracer.trace.blocks}


@pytest.mark.parametrize("masked", [False, True])
def test_a_cpu_takes_flash_attention_unless_it_drops(masked: bool) -> None:
    kernel = "_scaled_dot_product_flash_attention_for_cpu"
    cpu = torch.device("cpu")
    assert kernel in made_by(cpu, 4, torch.float32, masked=masked)
    assert kernel not in made_by(cpu, 4, torch.float32, masked=masked, dropout=0.1)


def test_a_gpu_takes_flash_attention_in_half_precision_without_a_mask() -> None:
    flash, efficient = "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"
    assert flash in made_by(CUDA, 2, torch.bfloat16, masked=False)
    assert efficient in made_by(CUDA, 4, torch.bfloat16, masked=True)
    assert efficient in made_by(CUDA, 4, torch.float32, masked=False)


def test_stand_ins_leave_nothing_behind() -> None:
    before, modules = cross_entropy.has_triton, set(sys.modules)
    with standing_in(CUDA):
        assert cross_entropy.has_triton() is True and torch.autocast("cuda", torch.bfloat16)._enabled
    assert cross_entropy.has_triton is before
    assert "etude.models.kernels" in modules or "etude.models.kernels" not in sys.modules


def test_norms_of_a_gpu_keep_what_they_were_given() -> None:
    tracer = Tracer(CUDA)
    with tracing(tracer, torch.nn.Identity()):
        x, weight = torch.ones(4, 8).requires_grad_(), torch.ones(8).requires_grad_()
        made = functional.rms_norm(x, (8,), weight, 1e-6)
        assert (made.shape, made.dtype) == (x.shape, x.dtype)
        made.sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None and weight.grad is not None
    kept = [block.nbytes for block in tracer.trace.blocks if block.kept and block.phase == "forward"]
    assert sorted(kept) == [4, 16, 32, 128, 128]
