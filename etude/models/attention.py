"""Causal attention of decoders: within rows, or within sequences that lie end to end in one row.

B rows, T tokens, H heads (of queries, or fewer of keys and values), D head_dim
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from etude.models.packing import Ends


def attend(q: Tensor, k: Tensor, v: Tensor, *, window: int | None, dropout: float) -> Tensor:
    """Causal attention of (B, T, H, D) heads within each row; returns (B, T, H, D).

    window: number of tokens that each token sees, itself included; None: all before it.
    """
    T, mask = q.shape[1], None
    if window is not None and window < T:
        place = torch.arange(T, device=q.device)
        mask = (place <= place[:, None]) & (place > place[:, None] - window)
    if mask is not None and k.shape[2] != q.shape[2]:
        # CUDA's kernels for masks want equal heads; those without a mask share them.
        k, v = (heads.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for heads in (k, v))
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    kind: dict[str, Any] = {"is_causal": mask is None, "enable_gqa": k.shape[1] != q.shape[1]}
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, **kind)
    return attended.transpose(1, 2)


def attend_each(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], ends: Ends, *, window: int | None, dropout: float
) -> Tensor:
    """Causal attention within each sequence; they lie end to end in rows (B, T, H, D), as the result does.

    lengths: of the sequences of each row, T together; ends: of those of all rows. window: as for `attend`.
    """
    assert sum(lengths) == q.shape[1], (lengths, q.shape)
    if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        cumulative, longest, groups = ends.on(q.device), max(lengths), q.shape[2] // k.shape[2]
        if groups > 1:
            k, v = (heads.repeat_interleave(groups, dim=2) for heads in (k, v))
        reach = (-1 if window is None else window - 1, 0)
        flat_q, flat_k, flat_v = (heads.flatten(0, 1) for heads in (q, k, v))
        packed = varlen_attn(
            flat_q, flat_k, flat_v, cumulative, cumulative, longest, longest, window_size=reach
        )
        assert isinstance(packed, Tensor)
        return packed.view(q.shape)
    parts = zip(*(torch.split(heads, list(lengths), dim=1) for heads in (q, k, v)))
    return torch.cat([attend(*part, window=window, dropout=dropout) for part in parts], dim=1)
