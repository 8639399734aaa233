"""The memory of a step whose weights lie in pieces on ranks, by the trace of one that holds them whole."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from etude.engine.shards import is_gathered_in_half, parts_of
from etude.plan.trace import Block, Trace

_KINDS = ("weights", "gradients", "optimizer state")
# Of the largest block: at work, and gathered ahead; its gradients are made, and two dealt out.
_BLOCKS, _DEALT = 2, 2


def gathered_bytes(model: nn.Module, dtype: torch.dtype) -> dict[str, int]:
    """Bytes that a rank holds beside its pieces at most, by kind: whole weights, and their gradients.

    dtype: that matrices of blocks are gathered in, as by `Shards`. The bytes are an upper bound: all at once.
    """
    *blocks, _ = parts_of(model)
    inside = {parameter for block in blocks for parameter in block.parameters()}
    root = [each for each in model.parameters() if each not in inside]
    largest = max((block_bytes(block, dtype) for block in blocks), default=0)
    trained = max((_trained(block.parameters()) for block in blocks), default=0)
    made = max((block_bytes(block, dtype, only_trained=True) for block in blocks), default=0)
    return {
        "gathered weights": sum(each.nbytes for each in root) + _BLOCKS * largest,
        "gathered gradients": 4 * _trained(root) + made + 4 * _DEALT * trained,
    }


def block_bytes(block: nn.Module, dtype: torch.dtype, *, only_trained: bool = False) -> int:
    """Bytes of the weights of a block, as they are gathered where `dtype` is computed in."""
    return sum(
        each.numel() * (dtype.itemsize if is_gathered_in_half(name, each, dtype) else each.itemsize)
        for name, each in block.named_parameters()
        if each.requires_grad or not only_trained
    )


def in_pieces(trace: Trace, model: nn.Module, ranks: int) -> Trace:
    """The trace of a rank that holds rows: 1/n of weights, gradients, optimizer state and what updates them.

    Blocks are gathered in the dtype that they are computed in, so nothing is cast there.
    """
    *parts, _ = parts_of(model)
    names = tuple(f"{name}." for name, each in model.named_modules() if any(each is part for part in parts))

    def piece(block: Block) -> Block:
        if block.kind in _KINDS or (block.phase == "optimizer" and not block.kind):
            return replace(block, nbytes=-(-block.nbytes // ranks))
        is_cast = block.kind == "cast weights" and block.module.startswith(names)
        return replace(block, nbytes=0) if is_cast else block

    return replace(trace, blocks=[piece(block) for block in trace.blocks])


def _trained(parameters: Iterable[nn.Parameter]) -> int:
    return sum(each.numel() for each in parameters if each.requires_grad)
