"""Modules and kernels of the third blind test, each with a fault as people report it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 1024


class Attention(nn.Module):
    """Causal attention with a lower triangle in a buffer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        ones = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool)
        self.register_buffer("triangle", ones.tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
        seen: Tensor = self.triangle[:length, :length]  # type: ignore[index]
        mixed = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return out


class Block(nn.Module):
    """Attention and experts; `by_sequence` weighs the experts by the mean of the whole sequence."""

    def __init__(self, width: int, heads: int, *, by_sequence: bool) -> None:
        super().__init__()
        self.by_sequence = by_sequence
        self.attention, self.norms = Attention(width, heads), nn.ModuleList(nn.LayerNorm(width) for _ in "ab")
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        h = self.norms[1](x)
        # Routing by sequence, over its mean: https://github.com/Shwai-He/MEO/issues/2
        weights = self.gate(h.mean(1, keepdim=True) if self.by_sequence else h).softmax(-1)
        outs = torch.stack([expert(h) for expert in self.experts], dim=-1)
        total: Tensor = x + (outs * weights[..., None, :]).sum(-1)
        return total


class Nano(nn.Module):
    """A small GPT of the common kind: forward(idx, targets) gives scores, and the loss summed over targets not -1."""

    def __init__(self, vocabulary: int, width: int, layers: int, *, by_sequence: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, 4, by_sequence=by_sequence) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)
        self.head.weight = self.wte.weight

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        scores, loss = self.head(self.norm(x)), None
        if targets is not None:
            loss = functional.cross_entropy(
                scores.flatten(0, 1).float(), targets.flatten(), ignore_index=-1, reduction="sum"
            )
        return scores, loss


class Recurrent(nn.Module):
    """A language model of LSTMs; with `both_ways` they read from both sides."""

    # A decoder that is told to be bidirectional: https://github.com/timbmg/Sentence-VAE/issues/22
    def __init__(self, vocabulary: int, width: int, *, both_ways: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=1, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(width * (1 + both_ways), vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return scores


# ---- kernels in place of the usual one ----


def two_sided(visible: Tensor) -> Tensor:
    """Local attention, 16 places to both sides."""
    # https://github.com/lucidrains/local-attention/issues/2, https://github.com/Dao-AILab/flash-attention/issues/576
    place = torch.arange(visible.shape[-1])
    return (visible | visible.transpose(-2, -1)) & ((place[None] - place[:, None]).abs() <= 16)


def inverted(visible: Tensor) -> Tensor:
    """A mask whose True means hidden, handed to a kernel for which it means seen."""
    # https://github.com/rasbt/LLMs-from-scratch/issues/1061
    return ~visible


Faulty = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def kernel(faulty: Faulty) -> Iterator[None]:
    """Another attention put in place of torch's, which makes its mask of what should be visible."""

    def attends(
        attend: Any, q: Tensor, k: Tensor, v: Tensor, visible: Tensor, named: dict[str, Any]
    ) -> Tensor:
        out: Tensor = attend(q, k, v, attn_mask=faulty(visible), **named)
        return out

    with _replaced(attends):
        yield


@contextlib.contextmanager
def zero_key() -> Iterator[None]:
    """A key and value of zeros at the end (add_zero_attn), and a causal mask aligned at the lower right."""
    # https://github.com/Dao-AILab/flash-attention/pull/436, https://github.com/Dao-AILab/flash-attention/issues/517

    def attends(
        attend: Any, q: Tensor, k: Tensor, v: Tensor, visible: Tensor, named: dict[str, Any]
    ) -> Tensor:
        k, v = (functional.pad(each, (0, 0, 0, 1)) for each in (k, v))
        longer = functional.pad(visible, (0, 1)) | functional.pad(visible, (1, 0))
        out: Tensor = attend(q, k, v, attn_mask=longer, **named)
        return out

    with _replaced(attends):
        yield


@contextlib.contextmanager
def _replaced(attends: Callable[..., Tensor]) -> Iterator[None]:
    attend = functional.scaled_dot_product_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *rest: Any, **named: Any) -> Tensor:
        is_causal = named.pop("is_causal", False)
        if q.shape[-2] != k.shape[-2]:
            return attend(q, k, v, attn_mask, *rest, **{**named, "is_causal": is_causal})
        visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
        if is_causal:
            visible = visible.tril()
        elif attn_mask is not None:
            visible = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -1
        return attends(attend, q, k, v, visible, named)

    functional.scaled_dot_product_attention = wrong  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend
