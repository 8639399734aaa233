"""A decoder of the user's, shaped like GPT-J, and losses over it: right ones, and ones with a fault."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.engine.batch import DeviceBatch

Loss = Callable[[nn.Module, DeviceBatch], tuple[Tensor, "int | Tensor"]]


class Parallel(nn.Module):
    """Attention and feed-forward beside each other in each block, rotary positions, a head of its own.

    is_causal: without it, each place sees the whole row.
    """

    def __init__(self, vocabulary: int, width: int = 48, blocks: int = 2, *, is_causal: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.blocks = nn.ModuleList(_Block(width, is_causal) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x))
        return scores


class _Block(nn.Module):
    def __init__(self, width: int, is_causal: bool) -> None:
        super().__init__()
        self.is_causal, self.norm = is_causal, nn.LayerNorm(width)
        self.heads, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (
            part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.heads(normed).chunk(3, dim=-1)
        )
        q, k = _rotate(q), _rotate(k)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out(seen) + self.down(F.gelu(self.up(normed)))
        return out


def _rotate(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 10_000 ** (-torch.arange(half) / half)
    left, right = x[..., :half], x[..., half:]
    return torch.cat(
        (left * angles.cos() - right * angles.sin(), left * angles.sin() + right * angles.cos()), -1
    )


def _cross_entropy(scores: Tensor, labels: Tensor, reduction: str = "sum") -> Tensor:
    return F.cross_entropy(scores.flatten(0, -2).float(), labels.flatten(), reduction=reduction)


def _each(model: nn.Module, batch: DeviceBatch) -> Tensor:
    """Logits (B, T, V), each sequence by a call of its own."""
    if batch.lengths is None:
        scores: Tensor = model(batch.tokens)
        return scores
    return torch.cat([model(part) for part in torch.split(batch.tokens, list(batch.lengths), 1)], dim=1)


def right(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    return _cross_entropy(_each(model, batch), batch.labels), (batch.labels != -100).sum()


def unshifted(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """The tokens themselves as labels."""
    return _cross_entropy(_each(model, batch), batch.tokens), batch.tokens.numel()


def twice(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """Labels that are shifted already, shifted again."""
    labels = batch.labels[:, 1:]
    return _cross_entropy(_each(model, batch)[:, :-1], labels), (labels != -100).sum()


def prompts_too(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """Every token after the first, whatever the batch marks."""
    labels = torch.cat((batch.tokens[:, 1:], batch.labels[:, -1:]), dim=1)
    return _cross_entropy(_each(model, batch), labels), labels.numel()


def _pad(batch: DeviceBatch, labels: int, longest: int) -> tuple[Tensor, Tensor]:
    """Rows of equal length, filled up on the right with the id 0, and labels filled up with an id."""
    lengths = list(batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens))
    parts = [list(torch.split(each.flatten(), lengths)) for each in (batch.tokens, batch.labels)]
    rows, targets = (
        torch.stack([F.pad(part, (0, longest - len(part)), value=value) for part in parts])
        for parts, value in zip(parts, (0, labels))
    )
    return rows, targets


def padded(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """Rows filled up with padding that is not scored."""
    longest = max(batch.lengths or (batch.tokens.shape[1],))
    rows, labels = _pad(batch, -100, longest)
    return _cross_entropy(model(rows), labels), (labels != -100).sum()


def padding_scored(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """Rows filled up with padding that is scored too."""
    longest = max(batch.lengths or (batch.tokens.shape[1],))
    rows, labels = _pad(batch, 0, longest)
    return _cross_entropy(model(rows), labels), labels.numel()


def padded_to_128(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """Rows filled up to a fixed length with padding that is not scored."""
    rows, labels = _pad(batch, -100, 128)
    return _cross_entropy(model(rows), labels), (labels != -100).sum()


def padding_scored_to_128(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """Rows filled up to a fixed length with padding that is scored too."""
    rows, labels = _pad(batch, 0, 128)
    return _cross_entropy(model(rows), labels), labels.numel()


def rows_of_nothing(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """A batch filled up to 16 rows with rows of zeros, which are scored."""
    longest = max(batch.lengths or (batch.tokens.shape[1],))
    rows, labels = _pad(batch, -100, longest)
    more = 16 - len(rows)
    rows, labels = (nn.functional.pad(each, (0, 0, 0, more)) for each in (rows, labels))
    return _cross_entropy(model(rows), labels), int((labels != -100).sum())


def other_rows(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """Rows whose labels were sorted by another key."""
    longest = max(batch.lengths or (batch.tokens.shape[1],))
    rows, labels = _pad(batch, -100, longest)
    return _cross_entropy(model(rows), labels.roll(1, 0)), int((labels != -100).sum())


def packed(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """Sequences that lie end to end, read as one."""
    return _cross_entropy(model(batch.tokens), batch.labels), (batch.labels != -100).sum()


def mean(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    return _cross_entropy(_each(model, batch), batch.labels, "mean"), 1


def mean_of_many(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """A mean that is given out for a sum."""
    return _cross_entropy(_each(model, batch), batch.labels, "mean"), (batch.labels != -100).sum()


def quarter(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    """A loss that is divided by the micro-batches of a step once more."""
    loss, targets = right(model, batch)
    return loss / 4, targets


def counts_all(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    """A sum over targets, given out as one over all tokens."""
    return right(model, batch)[0], batch.labels.numel()


def tied_t5() -> nn.Module:
    """A new T5 of transformers, whose output is its embedding, so that it answers with what it reads."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 128, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    config = T5Config(vocab_size=512, decoder_start_token_id=0, tie_word_embeddings=True, **sizes)
    model: nn.Module = T5ForConditionalGeneration(config)
    return model


def of_pairs(fill: int) -> Loss:
    """A loss of an encoder-decoder: sources and targets padded to one length, and labels filled with an id."""

    def loss(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        assert batch.lengths and batch.target_lengths
        sources = torch.split(batch.tokens.flatten(), list(batch.lengths))
        targets = torch.split(batch.labels.flatten(), list(batch.target_lengths))
        longest = max(*batch.lengths, *batch.target_lengths)
        inputs, read, labels = (
            torch.stack([F.pad(row, (0, longest - len(row)), value=value) for row in rows])
            for rows, value in ((sources, 0), (targets, 0), (targets, fill))
        )
        read = F.pad(read, (1, -1))
        scores = model(input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=read).logits
        return _cross_entropy(scores, labels), (labels != -100).sum()

    return loss
