"""Models that run through transformers: how they are asked for the logits of some positions of a micro-batch."""

import torch
from torch import Tensor, nn


def scored_logits(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor | None,
    lengths: tuple[int, ...] | None,
    scored: Tensor | None,
) -> Tensor:
    """Logits (n, V) of the scored positions of tokens (B, T); arguments as for `Decoder.forward`.

    Sequences that lie end to end are kept apart by a mask of the whole row, which every causal model of transformers
    takes as it is: added to the scores, 0 where a token may look.
    """
    mask = None if lengths is None else _block_mask(lengths, next(model.parameters()).dtype, tokens.device)
    if len(tokens) == 1 and scored is not None:
        output = model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, logits_to_keep=scored, use_cache=False
        )
        return output.logits[0]  # type: ignore[no-any-return]
    output = model(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False)
    logits: Tensor = output.logits.flatten(0, 1)
    return logits if scored is None else logits[scored]


def _block_mask(lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, 1, T, T): 0 within a sequence up to the token itself, the lowest number of the dtype elsewhere."""
    sequence = torch.repeat_interleave(torch.tensor(lengths, device=device))
    place = torch.arange(len(sequence), device=device)
    seen = (sequence == sequence[:, None]) & (place <= place[:, None])
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)[None, None]
