"""Layers that families share, against torch."""

import torch

from etude.models.layers import RMSNorm, draw, embedding, fill, run_block


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


def test_drawn_numbers_are_the_same_in_every_dtype() -> None:
    models = [torch.nn.Linear(5, 7, bias=False, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    for model in models:
        fill(model, [("weight", draw(model.weight.shape, 0.3, torch.Generator().manual_seed(4)))])
    exact, rounded = (model.weight for model in models)
    assert torch.equal(exact.bfloat16(), rounded) and 0.2 < exact.std() < 0.4


def test_an_embedding_of_padding_gets_no_gradient_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    layer = embedding(5, 3, padding=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.nn.init.ones_(layer.weight)
    layer(torch.tensor([1, 2, 2, 4])).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad[:, 0].tolist() == [0, 1, 0, 0, 1]


class Noisy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.layer = 0, torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        self.calls += 1
        return torch.nn.functional.dropout(self.layer(x), 0.5) * scale


def test_a_recomputed_block_runs_twice_and_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    block, x = Noisy(), torch.randn(3, 4, requires_grad=True)
    gradients = []
    for recompute in (False, True):
        block.zero_grad()
        torch.manual_seed(5)
        run_block(block, x, 2.0, recompute=recompute).sum().backward()
        gradients.append([part.grad.clone() for part in block.parameters() if part.grad is not None])
    assert block.calls == 3
    assert all(torch.equal(once, again) for once, again in zip(*gradients, strict=True))
