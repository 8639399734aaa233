"""Weights laid out for the few rows of generation on a CPU, where all time goes into reading them.

A product of few rows with a matrix as it lies in memory reads it at a third of the memory's speed. oneDNN has
a layout that it reads faster: 50,304 x 512 times one row takes 3.0 ms instead of 7.2, times 16 rows 8.1
instead of 18.4 (2 cores, torch 2.13). It is a copy, so it is made only where there is room.
"""

from typing import cast

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.cache import Cache, Places
from etude.models.decoder import Block, Decoder, rotary_tables
from etude.models.fused import rotate
from etude.models.layers import RMSNorm
from etude.models.lora import find_layers

MOST_ROWS = 32


class Packed:
    """The linear map of one layer, or of several with the same input as one."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None], rows: int) -> None:
        weight = torch.cat(weights) if len(weights) > 1 else weights[0].contiguous()
        self.sizes = list(map(len, weights))
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = None if biases[0] is None else torch.cat([bias for bias in biases if bias is not None])

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), the outputs of several layers side by side."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


class TokenReader:
    """A decoder that reads one token of each row, as `Decoder.advance` does, in fewer steps.

    Queries, keys and values come from one product, gate and up from another.
    """

    def __init__(self, model: Decoder, cache: Cache) -> None:
        self._model, self._cache = model, cache
        rows = len(cache.lengths)

        def pack(*layers: nn.Linear) -> Packed:
            return Packed([layer.weight for layer in layers], [layer.bias for layer in layers], rows)

        self._blocks: list[tuple[Block, Packed, Packed, Packed, Packed]] = []
        for block in cast(list[Block], list(model.model.layers)):
            attention, mlp = block.self_attn, block.mlp
            heads, out = pack(attention.q_proj, attention.k_proj, attention.v_proj), pack(attention.o_proj)
            self._blocks.append((block, heads, out, pack(mlp.gate_proj, mlp.up_proj), pack(mlp.down_proj)))
        self._head = Packed([model.head_weight()], [None], rows)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after the next token (B,) of each row, which the cache then holds too."""
        model, cache = self._model, self._cache
        places = Places(cache, torch.tensor(cache.lengths))
        rotary = rotary_tables(places.at[:, None], model.config)
        x = model.model.embed_tokens(tokens)
        for block, heads, out, pair, down in self._blocks:
            attention = block.self_attn
            parts = torch.split(heads(_norm(block.input_layernorm, x)), heads.sizes, dim=1)
            q, k, v = (part.view(len(x), 1, -1, attention.head_dim) for part in parts)
            q, k = rotate(attention.q_norm(q), rotary), rotate(attention.k_norm(k), rotary)
            seen = attention.attend_cached(q, k, v, cache, places)
            x = x + out(seen.flatten(1))
            gate, up = pair(_norm(block.post_attention_layernorm, x)).chunk(2, dim=1)
            x = x + down(functional.silu(gate) * up)
        cache.lengths = [length + 1 for length in cache.lengths]
        return self._head(_norm(model.model.norm, x))


def is_worth_it(model: Decoder, rows: int) -> bool:
    """True for few rows of plain, whole fp32 weights on a CPU with the layout, and memory for two copies."""
    has_layout = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
    if rows > MOST_ROWS or not has_layout or torch.is_autocast_enabled("cpu") or find_layers(model):
        return False
    parameters = list(model.parameters())
    is_plain = all(
        type(part) is nn.Parameter and part.device.type == "cpu" and part.dtype == torch.float32
        for part in parameters
    )
    return is_plain and 2 * sum(part.nbytes for part in parameters) < psutil.virtual_memory().available


def _norm(norm: RMSNorm, x: Tensor) -> Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)
