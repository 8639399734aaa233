"""GPTQ: against rounding by the errors of outputs, and against the equations solved one input at a time."""

import pytest
import torch
from torch import Tensor

from etude.models.compressed import Scheme, choose_scales, decode, encode
from etude.quantize.rounding import gptq, quantize_weight

SCHEME = Scheme(4, 32)


def correlated(rows: int, inputs: int, seed: int) -> Tensor:
    """Inputs (rows, inputs) that depend on each other, as those of a layer do."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, inputs // 4, generator=draw)
    return hidden @ torch.randn(inputs // 4, inputs, generator=draw) + 0.1 * torch.randn(
        rows, inputs, generator=draw
    )


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("inputs", [64, 320])
def test_outputs_change_less_than_by_rounding(inputs: int, ordered: bool) -> None:
    x, weight = (
        correlated(1024, inputs, 1),
        torch.randn(48, inputs, generator=torch.Generator().manual_seed(2)),
    )
    hessian = x.T @ x
    unseen = correlated(1024, inputs, 1)[:256]
    errors = []
    for given in (None, hessian):
        codes, scales = quantize_weight(weight, SCHEME, torch.float32, given, ordered=ordered)
        errors.append(float((unseen @ (decode(codes, scales) - weight).T).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_codes_are_those_of_the_equations_with_the_inverse_made_anew_for_each_input() -> None:
    """Optimal brain quantisation of a fixed order: each time the inverse of what is left of the Hessian."""
    x = correlated(512, 32, 3)
    weight, hessian = torch.randn(5, 32, generator=torch.Generator().manual_seed(4)), (x.T @ x).double()
    scales = choose_scales(weight, SCHEME, torch.float32)
    codes = gptq(weight, hessian.float(), scales, SCHEME, ordered=False)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(32)
    rest, expected = weight.double().clone(), torch.empty(5, 32)
    for at in range(32):
        inverse = torch.linalg.inv(damped[at:, at:])
        step = scales[:, at // 32].double()
        rounded = (rest[:, at] / step).round().clamp(-8, 7)
        expected[:, at] = rounded
        error = (rest[:, at] - rounded * step) / inverse[0, 0]
        rest[:, at:] -= error[:, None] * inverse[0]
    assert (codes == expected).float().mean() > 0.98  # single precision rounds a tie the other way


def test_without_correlations_gptq_is_rounding() -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(5))
    scales = choose_scales(weight, SCHEME, torch.float32)
    assert torch.equal(gptq(weight, torch.eye(64), scales, SCHEME), encode(weight, scales, SCHEME))


def test_an_input_that_is_always_zero_is_rounded_and_one_row_of_inputs_is_enough() -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(6))
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(7))
    x[:, 10] = 0
    codes, scales = quantize_weight(weight, SCHEME, torch.float32, x.T @ x)
    assert torch.equal(codes[:, 10], encode(weight, scales, SCHEME)[:, 10])
    assert decode(codes, scales).isfinite().all()
