"""Cross-entropy of a linear head without the N x V logits: loss and gradients in one pass over chunks."""

from typing import Any

import torch
from torch.nn import functional as F

from etude.models.fused import has_triton

# Rows of logits that exist at once; 1,024 are as quick on two cores, 256 a tenth slower.
CHUNK_ROWS = 512
# On a GPU each chunk costs a pass over the head's gradient: there it has so many logits (512 MiB in bf16).
_GPU_CHUNK_LOGITS = 2**28
# Rows of a head in half precision are filled up to a multiple of this: with 50,257 an H200 takes kernels of
# an older generation and computes at 117 TFLOP/s what it does at 730 elsewhere in the model.
_HEAD_MULTIPLE = 64


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of weights x -log softmax(hidden weight^T + bias)[labels] in nats, (), fp32.

    hidden (N, C), weight (V, C), labels (N,) int64, bias (V,), weights (N,) fp32, or all are 1.
    label_smoothing: the share of the truth that is spread over all V. Works on a chunk of rows at a time,
    CHUNK_ROWS on a CPU, and finds the gradients in the same pass, so that of N x V logits only those of a
    chunk exist at once.
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, bias, label_smoothing, weights
    )
    return loss


@torch.no_grad()
def target_losses(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """-log softmax(hidden weight^T + bias)[labels] of each target in nats, (N,) fp32, without gradients.

    Shapes and chunks as for `linear_cross_entropy`, whose sum it has.
    """
    device, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    most = max(CHUNK_ROWS, _GPU_CHUNK_LOGITS // len(weight)) if device == "cuda" else CHUNK_ROWS
    head, losses = weight.to(dtype), [hidden.new_zeros(0, dtype=torch.float32)]
    for rows, target in zip(torch.split(hidden.to(dtype), most), torch.split(labels, most)):
        scores = (rows @ head.T).float()
        scores = scores if bias is None else scores + bias
        losses.append(F.cross_entropy(scores, target, reduction="none"))
    return torch.cat(losses)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        bias: torch.Tensor | None,
        smoothing: float,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with_hidden, with_weight, _, with_bias, _, _ = ctx.needs_input_grad
        with_slope = with_hidden or with_weight or with_bias
        with torch.autocast(device, enabled=False):
            rows, head, V = hidden.to(dtype), weight.to(dtype), len(weight)
            if dtype.itemsize == 2 and V % _HEAD_MULTIPLE:
                head = F.pad(head, (0, 0, 0, -V % _HEAD_MULTIPLE))
            grad_hidden = torch.empty_like(rows) if with_hidden else None
            grad_weight = torch.zeros_like(weight, dtype=torch.float32) if with_weight else None
            grad_bias = (
                torch.zeros_like(bias, dtype=torch.float32) if bias is not None and with_bias else None
            )
            loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
            most = max(CHUNK_ROWS, _GPU_CHUNK_LOGITS // V) if device == "cuda" else CHUNK_ROWS
            chunks = max(-(-len(rows) // most), 1)
            logits = torch.empty((-(-len(rows) // chunks), len(head)), dtype=dtype, device=hidden.device)
            shares = [None] * chunks if weights is None else weights[:, None].tensor_split(chunks)
            has_kernel = dtype.itemsize == 2 and bias is None and device == "cuda" and has_triton()
            start = 0
            for part, target, share in zip(
                rows.tensor_split(chunks), labels[:, None].tensor_split(chunks), shares
            ):
                # (rows, V and what fills it up, which stays 0)
                slope = torch.mm(part, head.T, out=logits[: len(part)])
                if has_kernel:
                    from .softmax_kernel import sum_losses

                    loss += sum_losses(slope, V, target, share, smoothing, with_slope=with_slope)
                else:
                    scores = slope[:, :V].float()
                    if bias is not None:
                        scores += bias
                    loss += _sum_losses(scores, target, share, smoothing, with_slope=with_slope)
                    if grad_bias is not None:
                        grad_bias += scores.sum(dim=0)
                    if with_slope and dtype != torch.float32:  # else they share their memory
                        slope[:, :V] = scores
                if not with_slope:
                    continue
                if grad_hidden is not None:
                    torch.mm(slope, head, out=grad_hidden[start : start + len(part)])
                if grad_weight is not None and dtype == torch.float32:
                    grad_weight.addmm_(slope.T, part)
                elif grad_weight is not None:
                    grad_weight += (slope.T @ part)[:V]
                start += len(part)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return loss

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, torch.Tensor | None, None, None]:
        hidden, weight, bias = (
            None if saved is None else (saved * grad).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return hidden, weight, None, bias, None, None


def _sum_losses(
    scores: torch.Tensor,
    target: torch.Tensor,
    share: torch.Tensor | None,
    smoothing: float,
    *,
    with_slope: bool,
) -> torch.Tensor:
    """Sum the losses of a chunk, (), and turn its logits (rows, V) fp32 into d loss / d logits if asked.

    target, share: (rows, 1). In place, since at this size passes over memory cost as much as arithmetic:
    softmax, loss and slope of 512 x 50,304 logits take 26 ms instead of 58 with log_softmax (2 cores, torch
    2.13).
    """
    top, right = scores.amax(dim=1, keepdim=True), scores.gather(1, target)
    if smoothing:
        right = (1 - smoothing) * right + smoothing * scores.mean(dim=1, keepdim=True)
    total = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
    losses = total.log() + top - right
    if share is not None:
        losses = losses * share
    if with_slope:
        # softmax - truth, which is one-hot but for what is smoothed
        truth = scores.new_full(target.shape, smoothing - 1.0)
        if share is not None:
            total, truth = total / share, truth * share
        scores.div_(total).scatter_add_(1, target, truth)
        if smoothing:
            scores -= smoothing / scores.shape[1] * (1.0 if share is None else share)
    return losses.sum()
