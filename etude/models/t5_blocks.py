"""The blocks of an encoder-decoder; letters of shapes as in `t5.py`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.layers import RMSNorm, embedding
from etude.models.t5_config import T5Config

# Adds keys and values (B, H, 1, D) of a token to those before it, and returns all.
Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Context:
    """The values that all blocks of a stack share in one call. Samples of equal lengths are neighbours.

    groups       (samples, length, length) of the neighbours
    bias         (1, H, L, L) of relative positions, L the longest, -inf where the decoder must not look
    memory       (1, S, C) what the encoder made of the sources; None within the encoder
    with_memory  (samples, target length, source length) of the neighbours
    """

    groups: Sequence[tuple[int, int, int]]
    bias: Tensor
    memory: Tensor | None = None
    with_memory: Sequence[tuple[int, int, int]] = ()


class Stack(nn.Module):
    """Blocks and final norm of one side, under the names that transformers gives them; `T5` runs them."""

    def __init__(self, config: T5Config, n_layer: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.config, self.is_decoder = config, is_decoder
        self.block = nn.ModuleList(
            Block(config, is_first=layer == 0, is_decoder=is_decoder) for layer in range(n_layer)
        )
        self.final_layer_norm = RMSNorm(config.n_embd, config.norm_eps)

    def blocks(self) -> list["Block"]:
        """The same with their type."""
        return cast(list[Block], list(self.block))

    def bias(self, length: int) -> Tensor:
        """Bias (1, H, L, L) of self-attention in samples of L tokens, and, cut, in shorter ones."""
        table = self.blocks()[0].own.part.relative_attention_bias.weight  # (buckets, H)
        distance, count = torch.arange(1 - length, length, device=table.device), self.config.buckets
        buckets = relative_buckets(
            distance, buckets=count, max_distance=self.config.max_distance, is_decoder=self.is_decoder
        )
        by_distance = table[buckets].T  # (H, 2 L - 1)
        if self.is_decoder:
            by_distance = by_distance.masked_fill(distance > 0, -torch.inf)
        # The row of query i starts at distance -i: windows of L that move left from row to row.
        bias: Tensor = by_distance.unfold(1, length, 1).flip(1)[None]
        return bias


class Block(nn.Module):
    """Self-attention, in the decoder attention to the sources, and feed-forward."""

    def __init__(self, config: T5Config, *, is_first: bool, is_decoder: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Sublayer(config, "SelfAttention", Attention(config, has_bias=is_first))])
        if is_decoder:
            self.layer.append(Sublayer(config, "EncDecAttention", Attention(config, has_bias=False)))
        self.layer.append(Sublayer(config, "DenseReluDense", FeedForward(config)))

    @property
    def own(self) -> "Sublayer":
        """Self-attention."""
        return cast(Sublayer, self.layer[0])

    @property
    def cross(self) -> "Sublayer":
        """Attention to the sources."""
        return cast(Sublayer, self.layer[1])

    @property
    def last(self) -> "Sublayer":
        """Feed-forward."""
        return cast(Sublayer, self.layer[-1])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(1, T, C) to (1, T, C)."""
        x = self.own(x, context.groups, bias=context.bias)
        if context.memory is not None:
            x = self.cross(x, context.with_memory, memory=context.memory)
        out: Tensor = self.last(x)
        return out

    def remember(self, memory: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of sources, which lie at some places (B, S) of a memory (1, T, C)."""
        part = self.cross.part
        keys, values = (part.split(product(memory)[0][places]).contiguous() for product in (part.k, part.v))
        return keys, values

    def advance(
        self, x: Tensor, extend: Extend, bias: Tensor, sources: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        """One token (B, 1, C) a row, over those before it and over keys and values of the sources."""
        own, cross = self.own.part, self.cross.part
        normed = self.own.layer_norm(x)
        seen = extend(own.split(own.k(normed)), own.split(own.v(normed)))
        x = x + own.attend_cached(normed, *seen, bias)
        x = x + cross.attend_cached(self.cross.layer_norm(x), *sources, mask)
        out: Tensor = x + self.last.part(self.last.layer_norm(x))
        return out


class Sublayer(nn.Module):
    """x + part(norm(x)), where the part has the name that transformers gives it."""

    def __init__(self, config: T5Config, name: str, part: nn.Module) -> None:
        super().__init__()
        self.dropout, self.name = config.dropout, name
        self.add_module(name, part)
        self.layer_norm = RMSNorm(config.n_embd, config.norm_eps)

    @property
    def part(self) -> Any:
        """The attention or feed-forward."""
        return getattr(self, self.name)

    def forward(self, x: Tensor, *shared: Any, **others: Any) -> Tensor:
        """(1, T, C) to (1, T, C); what else there is goes to the part."""
        added = self.part(self.layer_norm(x), *shared, **others)
        return x + functional.dropout(added, self.dropout, self.training)


class Attention(nn.Module):
    """Attention within samples, scores not scaled; the first of a stack has the bias that all share."""

    def __init__(self, config: T5Config, *, has_bias: bool) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        inner = config.n_head * config.head_dim
        self.q = nn.Linear(config.n_embd, inner, bias=False)
        self.k = nn.Linear(config.n_embd, inner, bias=False)
        self.v = nn.Linear(config.n_embd, inner, bias=False)
        self.o = nn.Linear(inner, config.n_embd, bias=False)
        if has_bias:
            self.relative_attention_bias = embedding(config.buckets, config.n_head)

    def forward(
        self,
        x: Tensor,
        groups: Sequence[tuple[int, int, int]],
        *,
        bias: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(1, T, C) to (1, T, C); keys and values are of x itself, or of memory (1, S, C).

        groups: (samples, queries of each, keys of each), in order. bias: (1, H, L, L) for the longest.
        """
        seen = x if memory is None else memory
        queries = [samples * length for samples, length, _ in groups]
        keys = [samples * length for samples, _, length in groups]
        parts = zip(self.q(x)[0].split(queries), self.k(seen)[0].split(keys), self.v(seen)[0].split(keys))
        attended = []
        for (samples, _, length), part in zip(groups, parts):
            q, k, v = (self.split(heads.unflatten(0, (samples, -1))) for heads in part)
            mask = None if bias is None else bias[:, :, :length, :length]
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, scale=1.0
            )
            attended.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
        out: Tensor = self.o(torch.cat(attended)[None])
        return out

    def attend_cached(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """One token (B, 1, C) a row over keys and values (B, H, S, D); returns (B, 1, C)."""
        q = self.split(self.q(x))
        mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=1.0)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out

    def split(self, heads: Tensor) -> Tensor:
        """(B, T, H D) to (B, H, T, D)."""
        return heads.view(*heads.shape[:-1], self.n_head, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """wo(act(wi(x))), or gated wo(act(wi_0(x)) * wi_1(x)). Source: arXiv:2002.05202."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        kind = config.activation.removeprefix("gated-")
        self.act = _gelu_tanh if config.activation == "gated-gelu" else getattr(functional, kind)
        self.inner = ("wi_0", "wi_1") if config.gated else ("wi",)
        for name in self.inner:
            self.add_module(name, nn.Linear(config.n_embd, config.n_ffn, bias=False))
        self.wo = nn.Linear(config.n_ffn, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C) through (B, T, F)."""
        raw: list[Tensor] = [self.get_submodule(name)(x) for name in self.inner]
        is_fp16 = raw[0].dtype == torch.float16
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not is_fp16):
            first, *second = (product.float() if is_fp16 else product for product in raw)
            hidden = functional.dropout(math.prod(second, start=self.act(first)), self.dropout, self.training)
            if is_fp16 and self.wo.weight.is_floating_point():
                hidden = hidden.to(self.wo.weight.dtype)
            out: Tensor = self.wo(hidden)
        return out


def relative_buckets(distance: Tensor, *, buckets: int, max_distance: int, is_decoder: bool) -> Tensor:
    """The bucket of each distance (place of the key less that of the query), int64 of any shape.

    The first half of the buckets are for one distance each, the others for ranges that grow by a constant
    factor up to max_distance, and all beyond. Those of the encoder are shared out between both directions;
    the decoder has one.
    """
    if is_decoder:
        first, near = torch.zeros_like(distance), (-distance).clamp(min=0)
    else:
        buckets //= 2
        first, near = (distance > 0) * buckets, distance.abs()
    exact = buckets // 2
    # fp32 and in this order, so that borders fall where they fell in training.
    grown = (near.float() / exact).log() / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + grown.clamp(min=0).long()).clamp(max=buckets - 1)
    return first + torch.where(near < exact, near, far)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")
