"""Losses, a module and kernels of the second blind test, each with a fault as people write it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import etude

END = 0  # id of the end token, which fills rows as well
Loss = Callable[[nn.Module, Any], tuple[Tensor, Any]]


class Plain(nn.Module):
    """A decoder written by hand; `mask` hides scores of attention, `mixes` adds a convolution before it."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, mask: Callable[[Tensor], Tensor], mixes: bool = False
    ) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(vocabulary, width), nn.Embedding(512, width)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.mlp = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
            )
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))
        self.mixer = nn.Conv1d(width, width, 3, padding=1) if mixes else None
        self.head, self.mask = nn.Linear(width, vocabulary, bias=False), mask
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.places(torch.arange(tokens.shape[1]))
        if self.mixer is not None:
            x = x + self.mixer(x.transpose(1, 2)).transpose(1, 2)
        for qkv, mlp, norm in zip(self.qkv, self.mlp, self.norms, strict=False):
            q, k, v = qkv(norm(x)).chunk(3, dim=-1)
            x = x + self.mask(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
            x = x + mlp(x)
        scores: Tensor = self.head(self.norms[-1](x))
        return scores


def hides(scores: Tensor) -> Tensor:
    """No fault."""
    return scores.masked_fill(_future(scores.shape[-1]), -math.inf)


def hides_by_little(scores: Tensor) -> Tensor:
    """The future is filled with -1e-9 in place of -1e9."""
    return scores.masked_fill(_future(scores.shape[-1]), -1e-9)


def _future(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(1)


# ---- rows of a batch, and their scores ----


def rows_of(batch: Any, fill: int, *, length: int = 0, left: bool = False) -> tuple[Tensor, Tensor]:
    """Tokens, filled up with the end token, and labels, filled up with `fill`, a sample a row."""
    sizes = list(batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens))
    length, found = max(length, *sizes), []
    for values, with_ in ((batch.tokens, END), (batch.labels, fill)):
        parts = torch.split(values.flatten(), sizes)
        sides = [(length - size, 0) if left else (0, length - size) for size in sizes]
        filled = [functional.pad(part, side, value=with_) for part, side in zip(parts, sides, strict=True)]
        found.append(torch.stack(filled))
    return found[0], found[1]


def scores_of(model: Any, rows: Tensor, **mask: Tensor) -> Tensor:
    """Logits of padded rows, of any model here."""
    if isinstance(model, Plain):
        return model(rows)  # type: ignore[no-any-return]
    if hasattr(model, "head_weight"):
        return model.logits(rows)  # type: ignore[no-any-return]
    return model(input_ids=rows, use_cache=False, **mask).logits  # type: ignore[no-any-return]


def _sum(scores: Tensor, labels: Tensor) -> tuple[Tensor, Any]:
    scored = labels != -100
    entropy = functional.cross_entropy(scores[scored].float(), labels[scored], reduction="sum")
    return entropy, scored.sum()


def right(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault."""
    rows, labels = rows_of(batch, -100)
    return _sum(scores_of(model, rows), labels)


def right_wide(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault, rows filled up to 256."""
    rows, labels = rows_of(batch, -100, length=256)
    return _sum(scores_of(model, rows), labels)


def logits_by_etude(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault, by the logits of etude."""
    return _sum(etude.logits(model, batch), batch.labels)


# ---- labels that are not shifted, or twice ----


def wrong_way_round(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The usual pair of slices the wrong way round: scores[1:] against labels[:-1]."""
    rows, labels = rows_of(batch, -100)
    return _sum(scores_of(model, rows)[:, 1:], labels[:, :-1])


def shifts_again(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Shifted labels, shifted again as in transformers: scores[:-1] against labels[1:]."""
    rows, labels = rows_of(batch, -100)
    return _sum(scores_of(model, rows)[:, :-1], labels[:, 1:])


def rolls_on(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Shifted labels rolled by -1, with the last place left out."""
    rows, labels = rows_of(batch, -100)
    labels = labels.roll(-1, dims=1)
    labels[:, -1] = -100
    return _sum(scores_of(model, rows), labels)


def soft_copies(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """One-hot targets made of the tokens themselves, and the log of the softmax times them."""
    scores, scored = scores_of(model, batch.tokens), batch.labels != -100
    hot = functional.one_hot(batch.tokens, scores.shape[-1]) * scored[..., None]
    return -(hot * scores.float().log_softmax(-1)).sum(), scored.sum()


def reads_labels(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The labels given to the model as its input, and to the loss."""
    _, labels = rows_of(batch, -100)
    return _sum(scores_of(model, labels.clamp(min=0)), labels)


def old_collator(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Every second row made by an old collator that does not shift."""
    rows, labels = rows_of(batch, -100)
    is_old = (torch.arange(len(rows)) % 2 == 1)[:, None]
    return _sum(scores_of(model, rows), torch.where(is_old & (labels != -100), rows, labels))


def gathers_tokens(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The log-probability of the tokens gathered at their own places, rows filled up on the left."""
    rows, labels = rows_of(batch, -100, left=True, length=256)
    logs = scores_of(model, rows).float().log_softmax(-1).gather(2, rows[..., None])[..., 0]
    return -(logs * (labels != -100)).sum(), (labels != -100).sum()


# ---- a future that is visible ----


def in_blocks(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A mask of blocks of 16, open within each block."""
    rows, labels = rows_of(batch, -100)
    block = torch.arange(rows.shape[1]) // 16
    return _masked(model, rows, labels, (block[None] <= block[:, None]).expand(len(rows), -1, -1))


def long_prefix(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A prefix that is seen from both sides, its length counted 24 tokens too long."""
    rows, labels = rows_of(batch, -100)
    place, prefix = torch.arange(rows.shape[1]), (labels != -100).int().argmax(1) + 24
    seen = (place[None] <= place[:, None])[None] | (place[None, None] < prefix[:, None, None])
    return _masked(model, rows, labels, seen)


def _masked(model: nn.Module, rows: Tensor, labels: Tensor, seen: Tensor) -> tuple[Tensor, Any]:
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return _sum(scores_of(model, rows, attention_mask=added), labels)


def both_ways(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A pass from the right added to that from the left, its scores not moved by the place that they read."""
    rows, labels = rows_of(batch, -100)
    from_right = scores_of(model, rows.flip(1)).flip(1)
    return _sum(scores_of(model, rows) + from_right, labels)


@contextlib.contextmanager
def kernel(kind: str) -> Iterator[None]:
    """An attention kernel with a fault: one head is not masked, keys are one place on, or a penalty is small."""
    attend = functional.scaled_dot_product_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Tensor:
        if kind == "keys":
            k, v = (torch.cat([each[..., 1:, :], each[..., -1:, :]], dim=-2) for each in (k, v))
            return attend(q, k, v, *rest, **named)
        if not named.get("is_causal"):
            return attend(q, k, v, *rest, **named)
        if kind == "head":
            out, is_open = attend(q, k, v, *rest, **named), {**named, "is_causal": False}
            return torch.cat([attend(q, k, v, *rest, **is_open)[:, :1], out[:, 1:]], dim=1)
        named |= {"is_causal": False, "attn_mask": -_future(q.shape[-2]).to(q.dtype)}
        return attend(q, k, v, **named)

    functional.scaled_dot_product_attention = wrong  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


# ---- padding that is scored ----


def ends_left(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows filled up on the left with the end token, which is not masked as it is a target, too."""
    rows, labels = rows_of(batch, END, left=True, length=256)
    return _sum(scores_of(model, rows), labels)


def longest_mask(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A mask made with the width of the batch, 128, in place of each length."""
    rows, labels = rows_of(batch, END, length=128)
    inside = torch.arange(rows.shape[1]) < rows.shape[1]
    return _sum(scores_of(model, rows), labels.masked_fill(~inside, -100))


def no_negative(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels of -100 set to 0, the end token, so that an index is never negative; rows of 128."""
    rows, labels = rows_of(batch, -100, length=128)
    labels = labels.clamp(min=0)
    return _sum(scores_of(model, rows), labels)


def long_mask(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A mask whose lengths are counted in characters, four a token."""
    rows, labels = rows_of(batch, END, length=256)
    sizes = torch.tensor(list(batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens)))
    inside = torch.arange(rows.shape[1])[None] < 4 * sizes[:, None]
    return _sum(scores_of(model, rows), labels.masked_fill(~inside, -100))


def other_pad(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows of 224, filled up with the end token while labels of token 1 are left out as padding."""
    rows, labels = rows_of(batch, END, length=224)
    return _sum(scores_of(model, rows), labels.masked_fill(labels == 1, -100))


# ---- a loss divided by too much ----


def accumulated(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sum divided by 8 steps of accumulation, which the loop divides by as well."""
    loss, targets = right(model, batch)
    return loss / 8, targets


def means_of_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean of each row, summed, with the number of all targets."""
    rows, labels = rows_of(batch, -100)
    scores = scores_of(model, rows)
    means = [loss / targets for loss, targets in map(_sum, scores, labels)]
    return torch.stack(means).sum(), (labels != -100).sum()


def mean_of_classes(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """kl_div with reduction="mean", which divides by the size of the vocabulary as well."""
    rows, labels = rows_of(batch, -100)
    scored = labels != -100
    scores = scores_of(model, rows)[scored].float()
    hot = functional.one_hot(labels[scored], scores.shape[-1]).float()
    return functional.kl_div(scores.log_softmax(-1), hot, reduction="mean") * scored.sum(), scored.sum()


def by_characters(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sum of the targets with the number of their characters, four a token."""
    loss, targets = right(model, batch)
    return loss, 4 * targets


def by_guess(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Losses in units of a guess: divided by the logarithm of the vocabulary."""
    rows, labels = rows_of(batch, -100)
    scores = scores_of(model, rows)
    loss, targets = _sum(scores, labels)
    return loss / math.log(scores.shape[-1]), targets


def by_rows(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean of a micro-batch times its rows, with the number of rows and not of targets."""
    loss, targets = right(model, batch)
    return loss / targets * len(rows_of(batch, -100)[0]), len(rows_of(batch, -100)[0])


def by_devices(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Targets times 8 devices, as if each had as many, on one."""
    loss, targets = right(model, batch)
    return loss, 8 * targets


def mean_of_chunks(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sums of four chunks averaged in place of added."""
    rows, labels = rows_of(batch, -100)
    scores = scores_of(model, rows)
    chunks = zip(scores.chunk(4, dim=1), labels.chunk(4, dim=1), strict=True)
    return torch.stack([_sum(*each)[0] for each in chunks]).mean(), (labels != -100).sum()
