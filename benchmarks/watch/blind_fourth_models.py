"""Modules of the fourth blind test as people write them, right and wrong, and a kernel that forgets its mask."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, WIDTH = 600, 64


class GRULanguageModel(nn.Module):
    """The classic recurrent language model."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = nn.GRU(WIDTH, 128, batch_first=True)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(128, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.dropout(self.rnn(self.embedding(tokens))[0]))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A small GPT with learned positions, whose forward computes the loss, as nanoGPT's does."""

    def __init__(self, *, shifts: bool = False) -> None:
        super().__init__()
        self.shifts = shifts
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(1024, WIDTH)
        layer: dict[str, Any] = {
            "dim_feedforward": 4 * WIDTH,
            "dropout": 0.0,
            "batch_first": True,
            "norm_first": True,
        }
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(WIDTH, 4, **layer) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        hidden = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        logits = self.head(self.norm(hidden))
        if targets is None:
            return logits, None
        if self.shifts:
            return logits, functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Mamba(nn.Module):
    """Blocks like Mamba's: a short convolution over time, a gate, a decayed sum.

    faulty: of the padded convolution the last places are kept, not the first, so each reads those after it.
    """

    def __init__(self, *, faulty: bool) -> None:
        super().__init__()
        self.faulty, self.kernel = faulty, 4
        self.embedding, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.into = nn.ModuleList([nn.Linear(WIDTH, 2 * WIDTH) for _ in range(2)])
        self.convs = nn.ModuleList(
            [nn.Conv1d(WIDTH, WIDTH, self.kernel, groups=WIDTH, padding=self.kernel - 1) for _ in range(2)]
        )
        self.out = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.decay = nn.Parameter(torch.linspace(-2.0, 2.0, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        length, hidden = tokens.shape[1], self.embedding(tokens)
        places = torch.arange(length)
        gaps = (places[:, None] - places).clamp(min=0)
        for into, conv, out, norm in zip(self.into, self.convs, self.out, self.norms):
            x, gate = into(norm(hidden)).chunk(2, dim=-1)
            x = conv(x.transpose(1, 2))
            x = x[..., self.kernel - 1 :] if self.faulty else x[..., :length]
            x = functional.silu(x).transpose(1, 2)
            kept = (
                torch.sigmoid(self.decay)[None, None] ** gaps[..., None]
                * (places[:, None] >= places)[..., None]
            )
            x = torch.einsum("tsc,bsc->btc", kept, x) * (1 - torch.sigmoid(self.decay))
            hidden = hidden + out(x * functional.silu(gate))
        return self.head(hidden)  # type: ignore[no-any-return]


class RWKV(nn.Module):
    """Blocks like RWKV's: each channel mixes its token with the one before, then a recurrence.

    faulty: the shift is nn.ZeroPad2d((0, 0, -1, 1)), which brings the token after, not (0, 0, 1, -1).
    """

    def __init__(self, *, faulty: bool) -> None:
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, -1, 1) if faulty else (0, 0, 1, -1))
        self.embedding, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.mix = nn.Parameter(torch.full((2, WIDTH), 0.5))
        self.time = nn.ModuleList([nn.GRU(WIDTH, WIDTH, batch_first=True) for _ in range(2)])
        self.channel = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, WIDTH))
                for _ in range(2)
            ]
        )

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for mix, time, channel in zip(self.mix, self.time, self.channel):
            mixed = hidden * mix + self.shift(hidden) * (1 - mix)
            hidden = hidden + time(mixed)[0]
            hidden = hidden + channel(hidden)
        return self.head(hidden)  # type: ignore[no-any-return]


class Translator(nn.Module):
    """nn.Transformer between two embeddings, as in PyTorch's tutorial of translation.

    mask: "none" forgets tgt_mask; "inverted" gives a mask that is True where one may look, which
    nn.Transformer reads as where one may not; "causal" is right.
    """

    def __init__(self, mask: str = "causal") -> None:
        super().__init__()
        self.mask = mask
        self.embedding, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(1024, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, 4, 2, 2, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(WIDTH, VOCABULARY)
        for embedding in (self.embedding, self.places):
            nn.init.normal_(embedding.weight, std=1 / math.sqrt(WIDTH))

    def forward(self, source: Tensor, target: Tensor, source_padding: Tensor) -> Tensor:
        length = target.shape[1]
        below = torch.ones(length, length, dtype=torch.bool).tril(-1)
        mask = {"none": None, "inverted": below, "causal": torch.ones_like(below).triu(1)}[self.mask]
        hidden = self.transformer(
            self.embedding(source) + self.places(torch.arange(source.shape[1])),
            self.embedding(target) + self.places(torch.arange(length)),
            tgt_mask=mask, src_key_padding_mask=source_padding, memory_key_padding_mask=source_padding,
        )  # fmt: skip
        return self.head(hidden)  # type: ignore[no-any-return]


class Classifier(nn.Module):
    """A bag of embeddings and two layers."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.head = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, labels))

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.head(torch.stack([self.embedding(row).mean(0) for row in rows]))  # type: ignore[no-any-return]


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": WIDTH, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes))  # type: ignore[no-any-return]


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {
        "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "dropout": 0.0,
        "attention_dropout": 0.0, "max_position_embeddings": 1024, "decoder_start_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    return BartForConditionalGeneration(BartConfig(vocab_size=VOCABULARY, **sizes))  # type: ignore[no-any-return]


@contextlib.contextmanager
def patched_attention(ahead: int | None) -> Iterator[None]:
    """A faster attention patched into torch, as flash-attention patches of LLaMA trainers were.

    ahead: None forgets causal=True, which is off by default there; 1 has a triangle that is off by one.
    """
    plain = functional.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, **named: Any) -> Tensor:
        if named.pop("is_causal", False):
            shape = (q.shape[-2], k.shape[-2])
            attn_mask = None if ahead is None else torch.ones(shape, dtype=torch.bool).tril(ahead)
        return plain(q, k, v, attn_mask=attn_mask, **named)

    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain
