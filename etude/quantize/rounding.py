"""A weight as codes: each number rounded by itself, or by GPTQ so that the layer's outputs change least."""

import torch
from torch import Tensor

from etude.models.compressed import Scheme, choose_scales, encode

_DAMPING = 0.01  # of the mean of the diagonal
_BLOCK = 128  # inputs whose errors are kept until they are spread over those behind them


def quantize_weight(
    weight: Tensor, scheme: Scheme, dtype: torch.dtype, hessian: Tensor | None = None, *, ordered: bool = True
) -> tuple[Tensor, Tensor]:
    """The codes (out, in) int8 and scales (out, groups) of a weight (out, in), the scales in `dtype`.

    hessian: (in, in) sum of x x' over the inputs x of the layer, for GPTQ; without it numbers are rounded.
    """
    if hessian is None:
        scales = choose_scales(weight, scheme, dtype)
        return encode(weight, scales, scheme), scales
    scales = choose_scales(weight, scheme, dtype, hessian.diagonal())
    return gptq(weight, hessian, scales, scheme, ordered=ordered), scales


def gptq(weight: Tensor, hessian: Tensor, scales: Tensor, scheme: Scheme, *, ordered: bool = True) -> Tensor:
    """The codes (out, in) int8 whose errors cancel in the outputs of the layer, as far as they can.

    Inputs are rounded one by one; the error of each is spread over those that are not rounded yet:
    W[:, j:] -= (w_j - q_j) / U_jj U[j, j:], where U' U is the inverse of the Hessian (U upper triangular).
    Scales are those of the weight as it was. ordered: inputs with the largest squares come first, which
    changes no format. An input that never was other than zero is rounded by itself.

    Source: GPTQ, arXiv:2210.17323; github.com/IST-DASLab/gptq for the order.
    """
    outputs, inputs = weight.shape
    squares = hessian.diagonal()
    order = squares.argsort(descending=True, stable=True) if ordered else torch.arange(inputs)
    upper = _inverse_root(hessian[order][:, order])
    rest = weight.float().T[order].contiguous()  # (in, out), so that an input is one piece of memory
    each = scales.float().T[order // scheme.size(inputs)]  # (in, out)
    codes = torch.empty(inputs, outputs, dtype=torch.int8)
    for begin in range(0, inputs, _BLOCK):
        end = min(begin + _BLOCK, inputs)
        errors = torch.empty(end - begin, outputs)
        for at in range(begin, end):
            rounded = (rest[at] / each[at]).round_().clamp_(scheme.lowest, scheme.highest)
            codes[order[at]] = rounded.to(torch.int8)
            error = (rest[at] - rounded * each[at]) / upper[at, at]
            rest[at + 1 : end] -= upper[at, at + 1 : end, None] * error
            errors[at - begin] = error
        rest[end:] -= upper[begin:end, end:].T @ errors
    return codes.T.contiguous()


def _inverse_root(hessian: Tensor) -> Tensor:
    """U, upper triangular, with U' U the inverse of the damped Hessian."""
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal <= 0] = 1.0
    mean = float(diagonal.mean())
    for damping in (_DAMPING, 10 * _DAMPING, 100 * _DAMPING):
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        root, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(root), upper=True)
            if not failed and upper.isfinite().all():
                return torch.as_tensor(upper)
    return torch.eye(len(hessian))  # rounds each number by itself
