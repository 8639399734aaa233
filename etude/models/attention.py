"""Causal attention of decoders: within rows, or within sequences that lie end to end in one row.

B rows, T tokens, H heads (of queries, or fewer of keys and values), D head_dim
"""

import torch
from torch import Tensor
from torch.nn import functional

from etude.models.packing import Ends


def attend(q: Tensor, k: Tensor, v: Tensor, *, window: int | None, dropout: float) -> Tensor:
    """Causal attention of (B, T, H, D) heads within each row; returns (B, T, H, D).

    window: number of tokens that each token sees, itself included; None: all before it.
    """
    B, T = q.shape[:2]
    if window is not None and window < T:
        if _has_varlen(q, dropout):
            ends = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=q.device)
            return _attend_varlen(q, k, v, ends, T, window)
        # A row at a time: the blocks of several could not share memory.
        rows = zip(*(torch.split(heads, 1) for heads in (q, k, v)))
        return torch.cat([_attend_window(*row, window=window, dropout=dropout) for row in rows])
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    attended = functional.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=k.shape[1] != q.shape[1]
    )
    return attended.transpose(1, 2)


def attend_each(q: Tensor, k: Tensor, v: Tensor, ends: Ends, *, window: int | None, dropout: float) -> Tensor:
    """Causal attention within each sequence; they lie end to end in rows (B, T, H, D), as the result does.

    ends: of these sequences. window: as for `attend`.
    """
    lengths = ends.lengths
    assert sum(lengths) == q.shape[1], (lengths, q.shape)
    if _has_varlen(q, dropout):
        return _attend_varlen(q, k, v, ends.on(q.device), max(lengths), window)
    parts = zip(*(torch.split(heads, list(lengths), dim=1) for heads in (q, k, v)))
    return torch.cat([attend(*part, window=window, dropout=dropout) for part in parts], dim=1)


def attend_behind(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of (1, T, H, D), the last of the (1, H, P + T, D) tokens; returns (1, T, H, D)."""
    T, seen = q.shape[1], k.shape[2]
    is_seen = torch.ones(T, seen, dtype=torch.bool, device=q.device).tril(seen - T)
    q = q.transpose(1, 2)
    is_grouped = k.shape[1] != q.shape[1]
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=is_seen, enable_gqa=is_grouped)
    return attended.transpose(1, 2)


def _attend_window(q: Tensor, k: Tensor, v: Tensor, *, window: int, dropout: float) -> Tensor:
    """Causal attention of a row (1, T, H, D) that is longer than the window.

    The first tokens see all before them. The others are cut into blocks, each with the keys that one of its
    tokens sees, so that work and memory grow with T. At a length of 4,096 and a window of 256 this takes 0.27
    of the time of causal attention, where a mask takes 2.5 of it (forward and backward, torch 2.13, AVX2).
    """
    T = q.shape[1]
    # As quick as smaller and larger blocks, and fewer keys are hidden.
    size = max(window // 4, min(window, 128))
    rest = (T - window) % size
    parts = [attend(q[:, :window], k[:, :window], v[:, :window], window=None, dropout=dropout)]
    if T - window >= size:
        end = T - rest
        parts.append(_attend_blocks(q[:, window:end], k[:, :end], v[:, :end], size, dropout))
    if rest:
        first = T - rest - window
        parts.append(_attend_blocks(q[:, -rest:], k[:, first:], v[:, first:], rest, dropout))
    return torch.cat(parts, dim=1)


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, size: int, dropout: float) -> Tensor:
    """Attention of queries (1, n x size, H, D) over as many keys and those of a window before them."""
    H, D, window = k.shape[2], k.shape[3], k.shape[1] - q.shape[1]
    groups, span = q.shape[2] // H, window + size
    # Neighbours share their keys in memory. The query heads of a group stand where more queries would.
    k, v = (heads[0].unfold(0, span, size).transpose(2, 3) for heads in (k, v))  # (n, H, span, D)
    by_head = q.reshape(-1, size, H, groups, D).permute(0, 2, 3, 1, 4)
    grouped = by_head.flatten(2, 3)  # (n, H, groups x size, D)
    query, key = torch.arange(size, device=q.device)[:, None], torch.arange(span, device=q.device)
    is_seen = ((key > query) & (key <= query + window)).repeat(groups, 1)
    out = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=is_seen, dropout_p=dropout)
    return out.view(-1, H, groups, size, D).permute(0, 3, 1, 2, 4).reshape(q.shape)


def _has_varlen(q: Tensor, dropout: float) -> bool:
    """True if a kernel of the device attends within sequences of any lengths, with or without a window."""
    return q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16) and not dropout


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, window: int | None) -> Tensor:
    """Causal attention within sequences that lie end to end over all rows; ends: as `Ends` gives them."""
    from torch.nn.attention.varlen import varlen_attn

    if (groups := q.shape[2] // k.shape[2]) > 1:
        k, v = (heads.repeat_interleave(groups, dim=2) for heads in (k, v))
    reach = (-1 if window is None else window - 1, 0)
    flat_q, flat_k, flat_v = (heads.flatten(0, 1) for heads in (q, k, v))
    packed = varlen_attn(flat_q, flat_k, flat_v, ends, ends, longest, longest, window_size=reach)
    assert isinstance(packed, Tensor)
    return packed.view(q.shape)
