"""Layers that families share, against torch."""

import torch

from etude.models.layers import RMSNorm


def test_norm_and_its_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, 1e-5), torch.nn.RMSNorm(24, 1e-5)
    ours.load_state_dict(theirs.state_dict())
    rows = torch.randn(6, 24) * torch.tensor([0.0, 1e-4, 0.1, 1.0, 30.0, 1e4])[:, None]
    results = []
    for norm in (ours, theirs):
        x = rows.clone().requires_grad_()
        norm(x).pow(3).sum().backward()
        results.append((norm(x), x.grad, norm.weight.grad))
    torch.testing.assert_close(*results)
