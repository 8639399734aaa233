"""The memory that kernels of a device take beside their results, while they are at work."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_HALVES = (torch.bfloat16, torch.float16)
_COPIES = (_ATEN.copy_.default, _ATEN._to_copy.default, _ATEN.copy.default)
_PRODUCTS = {  # and the place of the left factor among the arguments
    **dict.fromkeys((_ATEN.mm.default, _ATEN.mm.out, _ATEN.bmm.default), 0),
    **dict.fromkeys((_ATEN.addmm.default, _ATEN.addmm_.default), 1),
}
# oneDNN lays out what it multiplies anew, a part at a time in each thread, and adds up long sums in fp32.
# Of 421 products of oneDNN 3.12 with AMX, 418 took at most 0.2 MB more than is said here, the mean 0.1 less.
_LAID_OUT_BYTES, _LONG_SUM = 820_000, 1024
# Queries and keys of a block of a CPU's attention; aten/src/ATen/native/cpu/FlashAttentionKernel.cpp.
_QUERIES = ((768, 256), (192, 64), (0, 32))
_KEYS = 512


def fixed_bytes(device: torch.device) -> tuple[int, ...]:
    """The bytes that libraries hold all the time: of cuBLAS on a GPU since Hopper, for each of two threads.

    Source: aten/src/ATen/cuda/CUDABlas.cpp; older ones have 8 MiB.
    """
    return (32 << 20, 32 << 20) if device.type == "cuda" else ()


def workspace_of(device: torch.device) -> Callable[[Any, Any], int]:
    """The bytes that an operation takes beside its results, while it is at work."""
    return _of_gpu if device.type == "cuda" else _of_cpu


def _of_cpu(func: Any, args: Any) -> int:
    """A CPU makes a copy of operands whose dtype is not that of the result, a GPU casts them on the way."""
    if func is _ATEN._scaled_dot_product_flash_attention_for_cpu.default:
        return _of_attention(args[0], args[1])
    if func is _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default:
        return _of_attention(args[1], args[2], backward=True)
    if (place := _PRODUCTS.get(func)) is not None:
        return _of_product(*args[place : place + 2])
    if torch.Tag.pointwise not in func.tags:
        return 0
    tensors = [x for x in args if isinstance(x, Tensor) and x.dim() and x.dtype != torch.bool]
    if len({x.dtype for x in tensors}) < 2 or func in _COPIES:
        return 0
    common = reduce(torch.promote_types, (x.dtype for x in tensors))
    return sum(x.numel() * common.itemsize for x in tensors if x.dtype != common)


def _of_product(left: Tensor, right: Tensor) -> int:
    """About what a product in half precision takes; one in fp32 takes memory that torch does not see."""
    if left.dtype not in _HALVES or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0
    (rows, terms), columns = left.shape[-2:], right.shape[-1]
    is_turned = left.stride(-1) != 1
    width = min(_up(rows, 64), 256) + 64 if is_turned else _up(columns, 64)
    laid_out = left.element_size() * _up(terms, 32) * width
    is_long = laid_out > _LAID_OUT_BYTES and terms >= _LONG_SUM and not is_turned
    return torch.get_num_threads() * min(laid_out, _LAID_OUT_BYTES) + (4 * rows * columns if is_long else 0)


def _of_attention(q: Tensor, k: Tensor, *, backward: bool = False) -> int:
    """Scores of a block in each thread, in fp32 and as multiplied; k and v anew in half precision."""
    is_half, threads = q.dtype in _HALVES, torch.get_num_threads()
    queries = min(next(block for least, block in _QUERIES if q.shape[2] >= least), q.shape[2])
    scores = threads * queries * min(k.shape[2], _KEYS)
    if backward:
        return scores * (12 if is_half else 8)
    sums = 4 * threads * queries * (q.shape[3] + 2)
    return 4 * scores + sums + (4 * scores + 2 * k.numel() * k.element_size() if is_half else 0)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _of_gpu(func: Any, args: Any) -> int:
    if func is _ATEN._scaled_dot_product_flash_attention_backward.default:
        q, k = args[1], args[2]
        rows, heads, length, width = q.shape
        wide, long = -(-width // 32) * 32, -(-length // 128) * 128
        expanded = 2 * k.element_size() * rows * k.shape[2] * heads * width if k.shape[1] != heads else 0
        return int(4 * rows * heads * long * (wide + 1) + expanded)
    return 0
