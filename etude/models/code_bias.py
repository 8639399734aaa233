"""What two tokens of code are to each other, as a learnt bias on the attention scores of each head.

It says whether both belong to the same identifier, how much deeper in brackets and in indentation one is than the
other, and of which kinds they are. All tables start at zero, where the encoder is the plain one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# As etude.data.lexer counts them.
KINDS, LEVELS = 9, 16
# Adam moves an entry by about the learning rate a step; so much faster it comes to where it matters within an epoch.
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

    def forward(self, code: Tensor) -> Tensor:
        """(n, H, t, t) [head, query, key] of n samples, code (n, t, 4) int64: kind, brackets, indentation, identifier.

        A look-up of each of the t x t pairs would be several times as slow as attention. But each table is a matrix
        between what the query is and what the key is, so one product of (t, 41) and (41, t) does for all of them.
        """
        kind, brackets, indentation, identifier = code.unbind(-1)
        depths = torch.arange(LEVELS, device=code.device)
        differences = depths[:, None] - depths + LEVELS - 1
        of_query = torch.cat(
            [
                self.kinds[:, kind],  # (H, n, t, KINDS)
                self.brackets[:, differences][:, brackets],
                self.indentation[:, differences][:, indentation],
            ],
            dim=-1,
        )
        counts = (kind, KINDS), (brackets, LEVELS), (indentation, LEVELS)
        of_key = torch.cat([functional.one_hot(each, count) for each, count in counts], dim=-1).to(of_query.dtype)
        linked = (identifier[:, :, None] == identifier[:, None]) & (identifier > 0)[:, None]
        bias = torch.matmul(of_query.transpose(0, 1) * _REACH, of_key.mT[:, None])
        return torch.addcmul(bias, linked[:, None].to(bias.dtype), (self.same * _REACH).to(bias.dtype)[:, None, None])
