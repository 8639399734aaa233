"""The relation of two tokens of code, as a learnt bias on the attention scores of each head.

It says whether both belong to the same identifier, how much deeper in brackets and in indentation one is than
the other, and of which kinds they are. All tables start at zero, where the encoder is the plain one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# As etude.data.lexer counts them.
KINDS, LEVELS = 9, 16
# Adam moves an entry by about the learning rate a step; so much faster it matters within an epoch.
_REACH = 16.0


class CodeBias(nn.Module):
    """Tables of one number a head, added to the scores of query and key.

    same         (H,), both are pieces of identifiers that are spelled the same
    brackets     (H, 2 LEVELS - 1), by depth of the query less that of the key; so is `indentation`
    kinds        (H, KINDS, KINDS), by kind of the query and kind of the key
    """

    def __init__(self, n_head: int) -> None:
        super().__init__()
        self.same = nn.Parameter(torch.zeros(n_head))
        self.brackets = nn.Parameter(torch.zeros(n_head, 2 * LEVELS - 1))
        self.indentation = nn.Parameter(torch.zeros(n_head, 2 * LEVELS - 1))
        self.kinds = nn.Parameter(torch.zeros(n_head, KINDS, KINDS))

    def forward(self, code: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """(n, H, t, t) [head, query, key] of each n samples of t tokens that `sizes` names as (n, t).

        code: (N, 4) int64 of all tokens: kind, depth of brackets and of indentation, identifier.

        Each table is a matrix between the kind of the query and that of the key, so one product of (t, 41)
        and (41, t) stands for the look-ups of all t x t pairs; only equal identifiers are found pair by pair.
        """
        kind, brackets, indentation, identifier = code.unbind(-1)
        depths = torch.arange(LEVELS, device=code.device)
        differences = depths[:, None] - depths + LEVELS - 1
        tables = self.kinds, self.brackets[:, differences], self.indentation[:, differences]
        columns = kind, brackets, indentation
        rows = [table[:, column] for table, column in zip(tables, columns)]
        of_query = torch.cat(rows, -1) * _REACH  # (H, N, 41)
        is_entry = [functional.one_hot(column, table.shape[-1]) for table, column in zip(tables, columns)]
        of_key = torch.cat(is_entry, -1)
        same = (self.same * _REACH)[:, None, None]
        tokens = [n * t for n, t in sizes]
        queries, keys = torch.split(of_query, tokens, 1), torch.split(of_key.to(of_query.dtype), tokens)
        parts = zip(sizes, queries, keys, torch.split(identifier, tokens))
        return [_bias(size, query, key, number, same) for size, query, key, number in parts]


def _bias(
    size: tuple[int, int], of_query: Tensor, of_key: Tensor, identifier: Tensor, same: Tensor
) -> Tensor:
    """(n, H, t, t) from (H, n x t, 41), (n x t, 41), (n x t) and what equal identifiers add, (H, 1, 1)."""
    bias = of_query.view(len(of_query), *size, -1).transpose(0, 1) @ of_key.view(*size, -1).mT[:, None]
    number = identifier.view(size)
    linked = (number[:, :, None] == number[:, None]) & (number > 0)[:, None]
    return torch.addcmul(bias, linked[:, None].to(bias.dtype), same.to(bias.dtype))
