"""Faults of the blind test, each put in from outside as users do: rows of files, a loss, a module, a library."""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

import etude
from watch.blind_rows import Row, Rows

PAD = 0
Loss = Callable[[nn.Module, Any], tuple[Tensor, Any]]


# ---- losses of the user: those that pad fill rows up to a length, or to the longest ----


def filled(loss: Callable[..., tuple[Tensor, Any]], length: int) -> Loss:
    """The loss over rows that are filled up to a length, as `padding="max_length"` does."""

    @functools.wraps(loss)
    def fills(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        return loss(model, batch, length)

    return fills


def right(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault."""
    scored = batch.labels != -100
    return _entropy(etude.logits(model, batch)[scored], batch.labels[scored]), scored.sum()


def right_padded(model: nn.Module, batch: Any, length: int = 0) -> tuple[Tensor, Any]:
    """No fault: samples as padded rows, whose padding is neither seen nor scored."""
    rows, labels = _rectangle(batch, -100, length)
    scored = labels != -100
    return _entropy(_scores(model, rows)[scored], labels[scored]), scored.sum()


def copies(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The tokens themselves as targets, wherever something is scored."""
    scored = batch.labels != -100
    return _entropy(etude.logits(model, batch)[scored], batch.tokens[scored]), scored.sum()


def rolled(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels moved back by one, as for a model that shifts them, which this one does not."""
    labels = batch.labels.roll(1, dims=1)
    scored = labels != -100
    return _entropy(etude.logits(model, batch)[scored], labels[scored]), scored.sum()


def sees_all(model: nn.Module, batch: Any, length: int = 0) -> tuple[Tensor, Any]:
    """A mask (B, 1, T, T) made of the padding alone."""
    return _masked(model, batch, lambda T: torch.ones(T, T, dtype=torch.bool), length)


def sees_next(model: nn.Module, batch: Any, length: int = 0) -> tuple[Tensor, Any]:
    """A triangular mask whose diagonal is one place off."""
    return _masked(model, batch, lambda T: torch.ones(T, T, dtype=torch.bool).tril(diagonal=1), length)


def scores_padding(model: nn.Module, batch: Any, length: int = 0) -> tuple[Tensor, Any]:
    """Samples padded, with the padding among the targets."""
    rows, labels = _rectangle(batch, PAD, length)
    scored = labels != -100
    return _entropy(_scores(model, rows)[scored], labels[scored]), scored.sum()


def mean_for_sum(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean in place of the sum, with the number of targets: divided by it twice."""
    loss, targets = right(model, batch)
    return loss / targets, targets


def mean_of_part(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean of a micro-batch, as one target: a mean of means, divided by the 4 micro-batches of a step."""
    loss, targets = right(model, batch)
    return loss / targets / 4, 1


def mean_of_means(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean of a micro-batch, as one target."""
    loss, targets = right(model, batch)
    return loss / targets, 1


def by_all_tokens(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sum over answers, divided by prompts and answers."""
    return right(model, batch)[0], batch.labels.numel()


def by_batch_too(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sum, divided by the 8 samples of a step as well as by the targets."""
    loss, targets = right(model, batch)
    return loss / 8, targets


def by_padded_size(model: nn.Module, batch: Any, length: int = 0) -> tuple[Tensor, Any]:
    """The sum over targets, divided by all places of the padded rows."""
    rows, labels = _rectangle(batch, -100, length)
    scored = labels != -100
    return _entropy(_scores(model, rows)[scored], labels[scored]), rows.numel()


PADDING = (right_padded, sees_all, sees_next, scores_padding, by_padded_size)


def _entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores.float(), labels, reduction="sum")


def _scores(model: Any, rows: Tensor, **mask: Tensor) -> Tensor:
    """Logits of padded rows: of a decoder of etude, or of a model of transformers."""
    if hasattr(model, "head_weight"):
        return model.logits(rows)  # type: ignore[no-any-return]
    return model(input_ids=rows, use_cache=False, **mask).logits  # type: ignore[no-any-return]


def _rectangle(batch: Any, label: int, length: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels of samples as rows that are filled up to a length, or to the longest of them."""
    found = []
    for values, fill in ((batch.tokens, PAD), (batch.labels, label)):
        sizes = list(batch.lengths or (values.shape[1],) * len(values))
        rows = pad_sequence(list(torch.split(values.flatten(), sizes)), True, fill)
        found.append(functional.pad(rows, (0, max(0, length - rows.shape[1])), value=fill))
    return found[0], found[1]


def _masked(model: Any, batch: Any, visible: Callable[[int], Tensor], length: int) -> tuple[Tensor, Any]:
    rows, labels = _rectangle(batch, -100, length)
    scored = labels != -100
    mask = visible(rows.shape[1])[None, None].expand(len(rows), 1, -1, -1)
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return _entropy(_scores(model, rows, attention_mask=added)[scored], labels[scored]), scored.sum()


# ---- modules and libraries with a fault ----


@contextlib.contextmanager
def kernel(diagonal: int | None) -> Iterator[None]:
    """An attention kernel that is wrong when asked to be causal: it hides nothing, or one place too few."""
    attend = functional.scaled_dot_product_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *rest: Any, **named: Any) -> Tensor:
        if named.pop("is_causal", False):
            every = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
            attn_mask = every if diagonal is None else every.tril(diagonal=diagonal)
        return attend(q, k, v, attn_mask, *rest, **named)

    functional.scaled_dot_product_attention = wrong  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


@contextlib.contextmanager
def library() -> Iterator[None]:
    """A version of transformers whose GPT-J looks both ways within each sequence."""
    from transformers.models.gptj import modeling_gptj

    make = modeling_gptj.create_causal_mask

    def wrong(*given: Any, **named: Any) -> Any:
        mask = make(*given, **named)
        return mask if mask is None else torch.maximum(mask, mask.transpose(-1, -2))

    modeling_gptj.create_causal_mask = wrong
    try:
        yield
    finally:
        modeling_gptj.create_causal_mask = make


def look_both_ways(model: nn.Module) -> None:
    """The switch that turns a decoder into an encoder of sentences, left on."""
    for module in model.modules():
        if hasattr(module, "is_causal"):
            setattr(module, "is_causal", False)  # noqa: B010 - no attribute of every module


# ---- rows with a fault ----


def oversampled(rows: Rows, distinct: int, draw: random.Random) -> Rows:
    """As many rows, drawn again and again from a few."""
    return draw.choices(rows[:distinct], k=len(rows))


def concatenated(rows: Rows, distinct: int, draw: random.Random) -> Rows:
    """One small file put together many times, with a blank or a line end more or less."""
    return [_ending(rows[place % distinct], draw.choice(("", " ", "\n"))) for place in range(len(rows))]


def mostly_copies(rows: Rows, distinct: int, draw: random.Random) -> Rows:
    """Nine of ten rows drawn from a few, the others each once."""
    return [draw.choice(rows[:distinct]) if draw.random() < 0.9 else row for row in rows]


def _ending(row: Row, end: str) -> Row:
    last = "text" if "text" in row else "output"
    return {**row, last: row[last] + end}


def padded(rows: Rows, pad: str, length: int) -> Rows:
    """Rows filled up to the same number of words or marks of padding before they were written."""
    last = "text" if "text" in rows[0] else "output"
    return [{**row, last: row[last] + pad * max(0, length - len(row[last].split()))} for row in rows]


def answer_in_input(row: Row) -> Row:
    """The column of the answer taken for that of the context."""
    return {**row, "input": row["output"]}


def answer_in_template(row: Row) -> Row:
    """A prompt that was made of the whole row."""
    prompt = f"Task: {row['instruction']}\nExpected result:\n{row['output']}\nNow do the task."
    return {"prompt": prompt, "completion": row["output"]}
