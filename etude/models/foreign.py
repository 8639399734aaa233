"""Models that run through transformers: how they are asked for logits of positions, or of the samples, of a batch."""

from typing import Any

import torch
from torch import Tensor, nn

# Families that take a mask of the whole row as it is, so that one call does for all its sequences. In others a window,
# a recurrence or a mask of their own would be lost without a word.
_MASKABLE = ("gpt2", "gptj", "gpt_neox", "starcoder2", "gemma", "phi", "llama", "qwen2")


def scored_logits(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor | None,
    lengths: tuple[int, ...] | None,
    scored: Tensor | None,
) -> Tensor:
    """Logits (n, V) of the scored positions of tokens (B, T); arguments as for `Decoder.forward`.

    Sequences that lie end to end are kept apart by a mask, added to the scores, or by a call for each.
    """
    if lengths is None:
        logits: Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits.flatten(0, 1)
    elif _takes_mask(model, lengths):
        mask = _block_mask(lengths, next(model.parameters()).dtype, tokens.device)
        named = {} if scored is None else {"logits_to_keep": scored}
        output = model(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False, **named)
        return output.logits[0]  # type: ignore[no-any-return]
    else:
        parts = torch.split(tokens, list(lengths), dim=1)
        logits = torch.cat([model(input_ids=part, use_cache=False).logits[0] for part in parts])
    return logits if scored is None else logits[scored]


def label_logits(model: Any, tokens: Tensor, lengths: tuple[int, ...] | None, token_types: Tensor | None) -> Tensor:
    """Logits (n, labels) of the samples in tokens (B, T), padded to the longest; arguments as for `Encoder.forward`."""
    each = lengths or (tokens.shape[1],) * tokens.shape[0]
    mask = nn.utils.rnn.pad_sequence([torch.ones(length, dtype=torch.long) for length in each], batch_first=True)

    def pad(ids: Tensor, padding: int) -> Tensor:
        parts = torch.split(ids.flatten(), list(each))
        return nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=padding)

    given = {}
    if token_types is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        given = {"token_type_ids": pad(token_types, 0)}
    padded = pad(tokens, model.config.get_text_config().pad_token_id)
    logits: Tensor = model(input_ids=padded, attention_mask=mask.to(tokens.device), **given).logits
    return logits


def _takes_mask(model: Any, lengths: tuple[int, ...]) -> bool:
    window = getattr(model.config, "sliding_window", None)
    return model.config.model_type in _MASKABLE and (window is None or window >= max(lengths))


def _block_mask(lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, 1, T, T): 0 within a sequence up to the token itself, the lowest number of the dtype elsewhere."""
    sequence = torch.repeat_interleave(torch.tensor(lengths, device=device))
    place = torch.arange(len(sequence), device=device)
    seen = (sequence == sequence[:, None]) & (place <= place[:, None])
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)[None, None]
