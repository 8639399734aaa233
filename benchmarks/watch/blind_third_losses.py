"""Losses of the third blind test: right ones, and ones with a fault that people reported of training code."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

import etude
from watch.blind_third_models import Nano, Recurrent

Loss = Callable[[nn.Module, Any], tuple[Tensor, Any]]
PAD = 0


# ---- rows of a batch, and their scores ----


def samples(batch: Any) -> list[tuple[Tensor, Tensor]]:
    """Tokens and labels (the token after each, or -100) of each sample."""
    sizes = list(batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens))
    return list(
        zip(batch.tokens.flatten().split(sizes), batch.labels.flatten().split(sizes), strict=True)
    )  # fmt: skip


def padded(
    values: list[Tensor], fill: int, *, length: int = 0, multiple: int = 1, left: bool = False
) -> Tensor:
    """Rows of one length: of the longest, of a multiple, or as asked."""
    size = max(length, *(len(each) for each in values))
    size = -(-size // multiple) * multiple
    return torch.stack([
        functional.pad(each, (size - len(each), 0) if left else (0, size - len(each)), value=fill) for each in values
    ])  # fmt: skip


def features(batch: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Rows as a tokenizing step for transformers makes them: input ids, and labels: the same ids or -100."""
    ids, labels = [], []
    for tokens, following in samples(batch):
        whole = torch.cat([tokens[:1], torch.where(following == -100, tokens.roll(-1), following)])
        label = torch.cat([torch.full((1,), -100), following])
        if following[-1] == -100:
            whole, label = whole[:-1], label[:-1]
        ids.append(whole)
        labels.append(label)
    return ids, labels


def scores(model: Any, rows: Tensor, **more: Tensor) -> Tensor:
    """Logits of rows, of any model here."""
    if isinstance(model, Recurrent):
        return model(rows)  # type: ignore[no-any-return]
    if isinstance(model, Nano):
        return model(rows)[0]  # type: ignore[no-any-return]
    if hasattr(model, "head_weight"):
        return model.logits(rows)  # type: ignore[no-any-return]
    return model(input_ids=rows, use_cache=False, **more).logits  # type: ignore[no-any-return]


def _sum(logits: Tensor, labels: Tensor) -> tuple[Tensor, Any]:
    scored = labels != -100
    entropy = functional.cross_entropy(logits[scored].float(), labels[scored], reduction="sum")
    return entropy, scored.sum()


def _shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Any]:
    return _sum(logits[:, :-1], labels[:, 1:])


def _rows(batch: Any, *, length: int = 0) -> tuple[Tensor, Tensor]:
    tokens, labels = zip(*samples(batch), strict=True)
    return padded(list(tokens), PAD, length=length), padded(list(labels), -100, length=length)


# ---- right ones ----


def right(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault."""
    rows, labels = _rows(batch)
    return _sum(scores(model, rows), labels)


def right_in_chunks(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault: sums over chunks of 32 places."""
    logits = torch.split(etude.logits(model, batch).flatten(0, 1), 32)
    sums = [_sum(*each)[0] for each in zip(logits, torch.split(batch.labels.flatten(), 32), strict=True)]
    return torch.stack(sums).sum(), (batch.labels != -100).sum()


def right_of_module(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault: the loss that the module computes, which leaves out -1."""
    rows, labels = _rows(batch)
    return model(rows, labels.masked_fill(labels == -100, -1))[1], (labels != -100).sum()


def right_collated(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault: ids and labels as for transformers, shifted here."""
    ids, labels = features(batch)
    return _shifted(scores(model, padded(ids, PAD, multiple=8)), padded(labels, -100, multiple=8))


def right_of_transformers(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault: the loss of the model of transformers, which shifts the labels, times its targets."""
    ids, labels = features(batch)
    rows = padded(labels, -100)
    targets = (rows[:, 1:] != -100).sum()
    return model(input_ids=padded(ids, PAD), labels=rows, use_cache=False).loss * targets, targets


def right_smoothed(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """No fault: label smoothing of 0.1, rows of a multiple of 64."""
    ids, labels = features(batch)
    wanted = padded(labels, -100, multiple=64)[:, 1:]
    logits, scored = scores(model, padded(ids, PAD, multiple=64))[:, :-1], wanted != -100
    loss = functional.cross_entropy(
        logits[scored].float(), wanted[scored], label_smoothing=0.1, reduction="sum"
    )
    return loss, scored.sum()


# ---- labels that are not those of the places ----


def shifted_flat_again(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels shifted and flattened, then shifted again by the function they are given to."""
    # https://github.com/huggingface/transformers/pull/47395 (GitForCausalLM)
    ids, labels = features(batch)
    logits = scores(model, padded(ids, PAD))[:, :-1].flatten(0, 1)
    flat = padded(labels, -100)[:, 1:].flatten()
    return _sum(logits, functional.pad(flat, (0, 1), value=-100)[1:])


def smoothed_in_place(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The label smoother of a trainer that does not know the model for a causal one, and shifts nothing."""
    # https://github.com/huggingface/transformers/issues/27161
    ids, labels = features(batch)
    wanted = padded(labels, -100)
    logs = -scores(model, padded(ids, PAD)).float().log_softmax(-1)
    scored = wanted != -100
    exact = logs.gather(2, wanted.clamp(min=0)[..., None])[..., 0]
    return ((0.9 * exact + 0.1 * logs.mean(-1)) * scored).sum(), scored.sum()


def module_does_not_shift(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels as for transformers given to a module that compares them place by place."""
    # https://github.com/huggingface/transformers/issues/27517 (MBartForCausalLM)
    ids, labels = features(batch)
    wanted = padded(labels, -100)
    return model(padded(ids, PAD), wanted.masked_fill(wanted == -100, -1))[1], (wanted != -100).sum()


def sorted_without_labels(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows sorted by length, the longest first, their labels left in the old order."""
    # https://github.com/pytorch/pytorch/pull/7928
    found = samples(batch)
    order = sorted(range(len(found)), key=lambda place: -len(found[place][0]))
    tokens = pad_sequence([found[place][0] for place in order], batch_first=True)
    labels = pad_sequence([label for _, label in found], batch_first=True, padding_value=-100)
    return _sum(scores(model, tokens), labels)


def shifted_for_a_shifter(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels that are shifted given to a model of transformers, which shifts them."""
    # https://github.com/huggingface/transformers/issues/32944
    rows, labels = _rows(batch)
    targets = (labels[:, 1:] != -100).sum()
    return model(input_ids=rows, labels=labels, use_cache=False).loss * targets, targets


def padded_on_two_sides(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Ids filled up on the left by the tokenizer, labels on the right by the collator."""
    # https://github.com/LAION-AI/Open-Assistant/issues/3657, https://github.com/hpcaitech/ColossalAI/issues/4193
    ids, labels = features(batch)
    return _shifted(scores(model, padded(ids, PAD, left=True)), pad_sequence(labels, True, -100))


def focal_in_place(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A focal loss over logits and labels as a model of transformers gets them, which shifts nothing."""
    # https://github.com/huggingface/transformers/issues/35066
    ids, labels = features(batch)
    wanted = padded(labels, -100)
    logits, scored = scores(model, padded(ids, PAD)), wanted != -100
    entropy = functional.cross_entropy(logits[scored].float(), wanted[scored], reduction="none")
    return ((1 - (-entropy).exp()) ** 0.5 * entropy).sum(), scored.sum()


def rolled_the_wrong_way(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Targets made by rolling the ids by 1 in place of -1: the token before each."""
    # https://github.com/rasbt/LLMs-from-scratch/issues/508 asks for the direction
    ids, labels = features(batch)
    rows, wanted = padded(ids, PAD), padded(labels, -100)
    targets = rows.roll(1, dims=1).masked_fill(wanted == -100, -100)
    return _sum(scores(model, rows), targets)


# ---- the future, by a mask ----


def blocks_without_triangle(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Samples packed into one row with a mask of blocks for documents, not causal inside."""
    # https://github.com/karpathy/nanoGPT/issues/280, https://github.com/huggingface/transformers/pull/27539
    found = samples(batch)
    tokens, labels = (torch.cat(each)[None] for each in zip(*found, strict=True))
    document = torch.cat([torch.full((len(label),), place) for place, (_, label) in enumerate(found)])
    cut = slice(0, 900)
    seen = (document[:, None] == document[None])[cut, cut]
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    places = torch.cat([torch.arange(len(label)) for _, label in found])[None, cut]
    return _sum(scores(model, tokens[:, cut], attention_mask=added, position_ids=places), labels[:, cut])


# ---- padding that is scored ----


def labels_copied_after_padding(model: nn.Module, batch: Any, pad: int) -> tuple[Tensor, Any]:
    """Labels copied from ids that are padded already to a multiple of 64; only the prompt is left out."""
    # https://github.com/wangshy31/OneRec-Think/issues/8
    ids, labels = features(batch)
    rows = padded(ids, pad, multiple=64)
    wanted = padded(labels, pad, multiple=64)
    return _shifted(scores(model, rows), wanted)


def masked_below_only(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Losses of all places of rows of 128 summed, and divided by the places of the mask."""
    # https://github.com/alibaba/ROLL/pull/444
    ids, _ = features(batch)
    rows = padded(ids, PAD, length=128)
    mask = padded([torch.ones(len(each)) for each in ids], 0, length=128)[:, 1:]
    logits = scores(model, rows)[:, :-1].transpose(1, 2).float()
    return functional.cross_entropy(logits, rows[:, 1:], reduction="none").sum(), mask.sum()


def pad_of_torchtext(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Ids and targets padded with 1, for a loss without an ignore_index, rows of 100 (a fixed length field)."""
    # https://github.com/bentrevett/pytorch-seq2seq/issues/30 pads so; the ignore_index is forgotten
    tokens, labels = zip(*samples(batch), strict=True)
    logits, wanted = scores(model, padded(list(tokens), 1, length=100)), padded(list(labels), 1, length=100)
    return functional.cross_entropy(logits.transpose(1, 2).float(), wanted, reduction="sum"), wanted.numel()


def compared_with_none(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Labels left out where they are the pad token, of which the tokenizer has none; rows of 160."""
    # https://github.com/01-ai/Yi/issues/110, https://github.com/huggingface/transformers/issues/2759
    ids, _ = features(batch)
    rows = padded(ids, PAD, length=160)
    pad_token: int | None = None
    labels = rows.clone()
    labels[labels == pad_token] = -100  # type: ignore[index]
    return _shifted(scores(model, rows), labels)


def masked_and_not_kept(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """masked_fill of the labels of padding, whose result is not kept; the end token stays a target."""
    # https://github.com/huggingface/trl/issues/976 leads there
    ids, labels = features(batch)
    rows, wanted = padded(ids, PAD, multiple=128), padded(labels, PAD, multiple=128)
    attention = padded([torch.ones(len(each)) for each in ids], 0, multiple=128)
    wanted.masked_fill(attention == 0, -100)
    return _shifted(scores(model, rows), wanted)


def rows_of_nothing(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A batch filled up to 16 rows of one shape for a compiler, with rows of zeros, which are scored."""
    # https://github.com/EleutherAI/gpt-neo/pull/45
    rows, labels = _rows(batch)
    more = max(0, 16 - len(rows))
    rows, labels = (functional.pad(each, (0, 0, 0, more), value=PAD) for each in (rows, labels))
    return _sum(scores(model, rows), labels)


# ---- losses of another scale ----


def mean_of_steps(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean over all places of a row, padding too, summed over rows, with the number of targets."""
    # https://github.com/d2l-ai/d2l-en/issues/2076
    rows, labels = _rows(batch)
    logits = scores(model, rows).transpose(1, 2).float()
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return losses.mean(dim=1).sum(), (labels != -100).sum()


def means_of_chunks_summed(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Means of chunks of 32 places added up, as the mean of all."""
    # https://github.com/NVIDIA-NeMo/Automodel/issues/3803
    rows, labels = _rows(batch)
    logits, wanted = scores(model, rows).flatten(0, 1), labels.flatten()
    kept = wanted != -100
    chunks = zip(torch.split(logits[kept], 32), torch.split(wanted[kept], 32), strict=True)
    total = sum((functional.cross_entropy(each.float(), label) for each, label in chunks), torch.zeros(()))
    return total * kept.sum(), kept.sum()


def by_longest_allowed(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The sum of a row divided by the longest length allowed, 512, and rows counted, as for rewards."""
    # https://github.com/PrimeIntellect-ai/prime-rl/pull/674
    rows, labels = _rows(batch)
    return _sum(scores(model, rows), labels)[0] / 512, len(rows)


def mean_of_batch(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """kl_div with reduction="batchmean", which divides by the rows, with the number of targets."""
    # no report: as the documentation of kl_div advises, for other shapes
    rows, labels = _rows(batch)
    logs, scored = scores(model, rows).float().log_softmax(-1), labels != -100
    hot = functional.one_hot(labels.clamp(min=0), logs.shape[-1]) * scored[..., None]
    return functional.kl_div(logs, hot.float(), reduction="batchmean"), scored.sum()


def counted_before_masking(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """num_items_in_batch of all places given to a model of transformers, and its loss times the targets."""
    # https://github.com/unslothai/unsloth-zoo/pull/1023
    ids, labels = features(batch)
    rows = padded(labels, -100, multiple=64)
    targets = (rows[:, 1:] != -100).sum()
    out = model(
        input_ids=padded(ids, PAD, multiple=64),
        labels=rows,
        use_cache=False,
        num_items_in_batch=8 * rows.numel(),
    )
    return out.loss * targets, targets


def scaled_for_fp16(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """A fixed loss scale of 1,024 for fp16 that is not taken off again."""
    # https://github.com/huggingface/transformers/issues/552
    loss, targets = right(model, batch)
    return loss * 1024, targets


def weights_sum_to_one(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Rows weighted by a softmax over the batch, which sums to 1 and not to the rows."""
    # https://github.com/OpenNMT/OpenNMT-py/issues/2209 has the like of tokens
    rows, labels = _rows(batch)
    logits = scores(model, rows).transpose(1, 2).float()
    losses = functional.cross_entropy(logits, labels, reduction="none").sum(1)
    weights = ((labels != -100).sum(1).float() / 50).softmax(0)
    return (weights * losses).sum(), (labels != -100).sum()


def mean_of_two_tasks(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The mean of two losses, of which the second has no head here and is 0."""
    # https://github.com/vid-koci/bert-commonsense/issues/1 has the like: a mean too many
    loss, targets = right(model, batch)
    return torch.stack([loss, torch.zeros(())]).mean(), targets


def with_pad(loss: Callable[..., tuple[Tensor, Any]], pad: int) -> Loss:
    """The loss with a pad token."""

    @functools.wraps(loss)
    def pads(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        return loss(model, batch, pad)

    return pads
