"""The Triton kernel of the loss against torch, on a machine with a GPU."""

import pytest
import torch
from torch.nn import functional as F

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
pytest.importorskip("triton")

from etude.engine.softmax_kernel import sum_losses


@pytest.mark.parametrize("V", [5, 4096, 9000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_share", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_and_slopes_are_those_of_torch(
    V: int, smoothing: float, with_share: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    filled = -(-V // 64) * 64
    logits = F.pad((3 * torch.randn(6, V)).to(dtype), (0, filled - V)).cuda()
    target = torch.tensor([0, V - 1, 1, 2, 3, 4]).cuda()
    share = torch.rand(6, 1).cuda() if with_share else None
    exact = logits[:, :V].float().requires_grad_()
    each = F.cross_entropy(exact, target, reduction="none", label_smoothing=smoothing)
    truth = each.sum() if share is None else (each * share[:, 0]).sum()
    truth.backward()
    slopes = logits.clone()
    alone = sum_losses(slopes, V, target[:, None], share, smoothing, with_slope=False)
    assert torch.equal(slopes, logits)
    loss = sum_losses(slopes, V, target[:, None], share, smoothing, with_slope=True)
    assert torch.equal(loss, alone) and torch.allclose(loss, truth, rtol=1e-5)
    assert exact.grad is not None
    assert torch.allclose(slopes[:, :V].float(), exact.grad, rtol=1e-2, atol=1e-7)
    assert not slopes[:, V:].any()
