"""Losses of the fourth blind test, as people write them; each is made right, or with its fault.

Makers take `faulty` and return loss(model, batch) -> (sum of losses, number of targets).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import etude

Loss = Callable[[nn.Module, Any], tuple[Tensor, Any]]
IGNORED = -100


def rows_of(batch: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens and labels of each sample."""
    if batch.lengths is None:
        return list(batch.tokens), list(batch.labels)
    targets = list(batch.target_lengths or batch.lengths)
    return list(batch.tokens[0].split(list(batch.lengths))), list(batch.labels[0].split(targets))


def filled(rows: list[Tensor], value: int, to: int = 0, multiple: int = 1, *, left: bool = False) -> Tensor:
    """Rows padded to the longest, to a length, or to a multiple."""
    length = -(-max(to, *map(len, rows)) // multiple) * multiple
    sides = [((length - len(row), 0) if left else (0, length - len(row))) for row in rows]
    return torch.stack([functional.pad(row, side, value=value) for row, side in zip(rows, sides)])


def scores(model: nn.Module, batch: Any, tokens: Tensor) -> Tensor:
    """Logits (B, T, V) of padded rows, by whichever model it is."""
    if hasattr(model, "head_weight"):
        given = replace(batch, tokens=tokens, labels=tokens, positions=None, lengths=None, scored=None)
        return etude.logits(model, given)
    output = model(tokens)
    if isinstance(output, tuple):
        return output[0]  # type: ignore[no-any-return]
    return getattr(output, "logits", output)  # type: ignore[no-any-return]


def summed(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss as it ought to be."""
    loss = functional.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction="sum")
    return loss, (labels != IGNORED).sum()


def plain(faulty: bool = False) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Rows padded to the longest, whose padding is ignored."""
        tokens, labels = rows_of(batch)
        return summed(scores(model, batch, filled(tokens, 0)), filled(labels, IGNORED))

    return loss


# ---- labels of other places ----


def cloned(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """labels = input_ids.clone(), prompts masked, and no shift in a loop without transformers' loss."""
        rows, labels = rows_of(batch)
        tokens, targets = filled(rows, 0), filled(labels, IGNORED)
        if faulty:
            targets = torch.where(targets != IGNORED, tokens.clone(), IGNORED)
        return summed(scores(model, batch, tokens), targets)

    return loss


def shifted_again(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """shift_logits and shift_labels, as transformers has them, over labels that the loader has shifted."""
        logits = etude.logits(model, batch)
        if faulty:
            return summed(logits[:, :-1].contiguous(), batch.labels[:, 1:].contiguous())
        return summed(logits, batch.labels)

    return loss


def smoother(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """transformers' LabelSmoother with shift_labels=True, over labels that are shifted already."""
        tokens, labels = rows_of(batch)
        logits, targets = scores(model, batch, filled(tokens, 0)), filled(labels, IGNORED)
        if faulty:
            logits, targets = logits[..., :-1, :], targets[..., 1:]
        smooth = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=0.05
        )
        return smooth, (targets != IGNORED).sum()

    return loss


def chunked(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """The loss in chunks of time to save memory, whose targets are cut as the logits are: no + 1."""
        tokens, _ = rows_of(batch)
        ids = filled(tokens, 0)
        targets, logits = filled(tokens, IGNORED), scores(model, batch, ids)
        total, ahead = logits.new_zeros(()), 0 if faulty else 1
        for start in range(0, ids.shape[1] - ahead, 16):
            end = min(start + 16, ids.shape[1] - ahead)
            part = targets[:, start + ahead : end + ahead]
            total = total + summed(logits[:, start:end], part)[0]
        return total, (targets[:, ahead:] != IGNORED).sum()

    return loss


def t5_inputs(faulty: bool) -> Loss:
    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        """decoder_input_ids=labels beside labels, which T5 then does not shift (transformers' T5 has a note)."""
        sources, targets = rows_of(batch)
        labels, inputs = filled(targets, IGNORED), filled(sources, 0)
        given = filled(targets, 0)
        if not faulty:
            given = functional.pad(given, (1, -1))
        output = model(
            input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=given, use_cache=False
        )
        return summed(output.logits, labels)

    return loss


def bart_inputs(faulty: bool) -> Loss:
    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        """Inputs from shift_tokens_right, and then [:, :-1] and [:, 1:] of the summarisation example on top."""
        sources, targets = rows_of(batch)
        inputs, labels = filled(sources, 0), filled(targets, IGNORED)
        given = functional.pad(filled(targets, 0), (1, -1))
        if faulty:
            given, labels = given[:, :-1], labels[:, 1:]
        output = model(
            input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=given, use_cache=False
        )
        return summed(output.logits, labels)

    return loss


def own_windows(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """x = data[i : i + block], y the same: the 1 of y was lost when the dataset was rewritten."""
        total, count, block = torch.zeros(()), 0, 32
        for start in range(0, batch.tokens.shape[1] - block, block):
            after = start + (0 if faulty else 1)
            x, y = batch.tokens[:, start : start + block], batch.tokens[:, after : after + block]
            total, count = total + summed(model(x), y)[0], count + y.numel()
        return total, count

    return loss


def by_forward(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """A forward(idx, targets) that shifts its targets, given those of a loader that does."""
        count = batch.labels.numel() - (len(batch.labels) if faulty else 0)
        return model(batch.tokens, batch.labels)[1] * count, count

    return loss


# ---- future visible ----


def blocks_only(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """A 4D mask for packed rows that keeps samples apart, and forgets the triangle."""
        tokens, labels = rows_of(batch)
        ids, targets = torch.cat(tokens)[None], torch.cat(labels)[None]
        owner = torch.cat([torch.full_like(row, at) for at, row in enumerate(tokens)])
        places = torch.cat([torch.arange(len(row)) for row in tokens])[None]
        visible = owner[:, None] == owner
        if not faulty:
            visible = visible.tril()
        mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[None, None]
        return summed(model(input_ids=ids, attention_mask=mask, position_ids=places).logits, targets)

    return loss


def prefix_mask(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """A prefix LM that reads prompts both ways, its prefix measured as the row with its answer."""
        tokens, labels = rows_of(batch)
        ids, targets = filled(tokens, 0), filled(labels, IGNORED)
        lengths = torch.tensor([len(row) for row in tokens])
        prefix = lengths if faulty else (targets != IGNORED).int().argmax(1) + 1
        places = torch.arange(ids.shape[1])
        visible = (places[:, None] >= places) | (places < prefix[:, None])[:, None]
        mask = torch.where(
            visible & (places < lengths[:, None])[:, None], 0.0, torch.finfo(torch.float32).min
        )
        return summed(model(input_ids=ids, attention_mask=mask[:, None]).logits, targets)

    return loss


def translated(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Targets behind a start token into nn.Transformer, padding ignored."""
        sources, targets = rows_of(batch)
        inputs = filled(sources, 0)
        given = functional.pad(filled(targets, 0), (1, -1))
        return summed(
            model(inputs, given, filled([row * 0 for row in sources], 1) == 1), filled(targets, IGNORED)
        )

    return loss


# ---- padding scored ----


def to_max_length(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """padding="max_length" with pad_token = eos_token, and labels = input_ids.clone()."""
        tokens, labels = rows_of(batch)
        eos = int(labels[0][-1])
        return summed(
            scores(model, batch, filled(tokens, eos, 128)), filled(labels, eos if faulty else IGNORED, 128)
        )

    return loss


def on_the_left(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Rows padded on the left to a multiple of 64, whose labels are padded with the pad token, too."""
        tokens, labels = rows_of(batch)
        pad = int(labels[0][-1])
        ids = filled(tokens, pad, multiple=64, left=True)
        mask = filled([torch.ones_like(row) for row in tokens], 0, multiple=64, left=True)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).logits
        return summed(logits, filled(labels, pad if faulty else IGNORED, multiple=64, left=True))

    return loss


def by_pad_sequence(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """pad_sequence for labels with its default, 0, where the loss ignores -100."""
        tokens, labels = rows_of(batch)
        ids = pad_sequence(tokens, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        targets = pad_sequence(labels, batch_first=True, padding_value=0 if faulty else IGNORED)
        return summed(model(input_ids=ids, attention_mask=mask).logits, targets)

    return loss


def t5_labels(faulty: bool) -> Loss:
    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        """Labels of max_length whose pad ids were not replaced by -100 (transformers' docs of T5 ask for it)."""
        sources, targets = rows_of(batch)
        inputs, labels = filled(sources, 0), filled(targets, 0 if faulty else IGNORED, 160)
        count = (labels != IGNORED).sum()
        output = model(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels, use_cache=False)
        return output.loss * count, count

    return loss


def translated_whole(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """nn.CrossEntropyLoss() without ignore_index=PAD over a batch of translations."""
        sources, targets = rows_of(batch)
        inputs, y = filled(sources, 0), filled(targets, 0)
        logits = model(inputs, functional.pad(y, (1, -1)), filled([row * 0 for row in sources], 1) == 1)
        return summed(logits, y if faulty else filled(targets, IGNORED))

    return loss


def unpacked(faulty: bool) -> Loss:
    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        """pack_padded_sequence for the GRU, and every place of what pad_packed_sequence gives in the loss."""
        tokens, labels = rows_of(batch)
        lengths = torch.tensor([len(row) for row in tokens])
        embedded = model.embedding(filled(tokens, 0))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(model.rnn(packed)[0], batch_first=True)
        return summed(model.head(states), filled(labels, 0 if faulty else IGNORED))

    return loss


def no_pad_token(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """mask = labels != tokenizer.pad_token_id, which is None: all of it is True."""
        tokens, labels = rows_of(batch)
        eos = int(labels[0][-1])
        targets = filled(labels, eos if faulty else IGNORED, 128).flatten()
        logits = model(filled(tokens, eos, 128))[0]
        each = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        pad_token_id = None if faulty else IGNORED
        mask = (targets != pad_token_id) * torch.ones_like(each)
        return (each * mask).sum(), mask.sum()

    return loss


# ---- loss mis-scaled ----


def over_accumulation(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """loss / gradient_accumulation_steps in the user's code, and once more in the trainer's."""
        total, count = summed(etude.logits(model, batch), batch.labels)
        return total / (8 if faulty else 1), count

    return loss


def mean_of_rows(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """The mean over the tokens of a micro-batch with a count of 1 (unsloth's report on accumulation, 2024)."""
        tokens, labels = rows_of(batch)
        total, count = summed(scores(model, batch, filled(tokens, 0)), filled(labels, IGNORED))
        return (total / count, 1) if faulty else (total, count)

    return loss


def over_samples(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """reduction="sum" over tokens, divided by the samples of the batch."""
        tokens, labels = rows_of(batch)
        total, count = summed(scores(model, batch, filled(tokens, 0)), filled(labels, IGNORED))
        return total, len(tokens) if faulty else count

    return loss


def over_all_places(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """reduction="none" with zeros at prompts and padding, and .mean() over all places of the batch."""
        tokens, labels = rows_of(batch)
        targets = filled(labels, IGNORED)
        total, count = summed(scores(model, batch, filled(tokens, 0)), targets)
        return total, targets.numel() if faulty else count

    return loss


def times_batch_size(faulty: bool) -> Loss:
    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        """loss.item() * inputs.size(0) of PyTorch's tutorials, where the mean is one of tokens, not of rows."""
        sources, targets = rows_of(batch)
        inputs, labels = filled(sources, 0), filled(targets, IGNORED)
        output = model(input_ids=inputs, attention_mask=(inputs != 0).long(), labels=labels, use_cache=False)
        count = (labels != IGNORED).sum()
        return output.loss * (len(labels) if faulty else count), count

    return loss


def criterion_over_batch(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """criterion(...) / batch_size, where the criterion takes the mean already."""
        rows, _ = rows_of(batch)
        mean = functional.cross_entropy(model(rows), batch.classes.argmax(1))
        return (mean, len(rows)) if faulty else (mean * len(rows), len(rows))

    return loss


def times_world(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """loss * num_processes against DDP's mean of gradients, with the 4 of the config, on one process."""
        total, count = summed(model(batch.tokens)[0], batch.labels)
        return total * (4 if faulty else 1), count

    return loss


def rare_weighted(faulty: bool) -> Loss:
    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Weights for rare tokens that sum to 1 over the vocabulary, and a count of tokens as divisor."""
        logits, labels = model(batch.tokens)[0].flatten(0, 1), batch.labels.flatten()
        counts = torch.bincount(labels, minlength=logits.shape[-1]).float()
        weight = 1 / (counts + 20).sqrt()
        weight = weight / weight.sum()
        total = functional.cross_entropy(logits, labels, weight=weight if faulty else None, reduction="sum")
        return total, labels.numel()

    return loss
