"""Rows of embedding and head that nothing has trained, as those of tokens that only a chat template uses."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 0.1  # of what is usual; among trained rows the smallest have about half of it
_SAMPLE_ROWS = 4096
_FEW = 16


def find_untrained(model: nn.Module, ids: Iterable[int]) -> list[int]:
    """The ids whose frozen row in the embedding or in the head looks as if it was never trained.

    That is a row which is nearly zero, nearly the mean of all rows (as transformers makes new ones), or equal
    to another row. A matrix that is trained now is left out.
    """
    wanted = sorted(set(ids))
    matrices = [matrix for matrix in _matrices(model) if not matrix.requires_grad]
    found: set[int] = set()
    for matrix in matrices:
        found.update(_untrained_rows(matrix.detach(), [token for token in wanted if token < len(matrix)]))
    return sorted(found)


def _matrices(model: nn.Module) -> list[Tensor]:
    """The embedding of tokens and the head of a model that writes text, one matrix if they are tied."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    found = [max(embeddings, key=Tensor.numel)] if embeddings else []
    give: Any = getattr(model, "head_weight", None)
    if give is not None:
        found.append(give())
    elif (head := getattr(model, "get_output_embeddings", lambda: None)()) is not None:
        found.append(head.weight)
    return list({id(matrix): matrix for matrix in found if matrix.is_floating_point()}.values())


def _untrained_rows(matrix: Tensor, ids: list[int]) -> list[int]:
    """ids of the rows of a matrix (V, C) that look untrained."""
    if not ids:
        return []
    places = torch.linspace(0, len(matrix) - 1, min(len(matrix), _SAMPLE_ROWS)).long()
    some = matrix[places.to(matrix.device)].float()
    mean = some.mean(dim=0)
    size, spread = some.norm(dim=1).median(), (some - mean).norm(dim=1).median()
    rows = matrix[torch.tensor(ids, device=matrix.device)].float()
    is_bad = (rows.norm(dim=1) < _SMALL * size) | ((rows - mean).norm(dim=1) < _SMALL * spread)
    flags: list[bool] = is_bad.tolist()
    return [token for token, flag in zip(ids, flags) if flag or _is_repeated(matrix, token)]


def _is_repeated(matrix: Tensor, token: int) -> bool:
    row = matrix[token]
    near = (matrix[:, :_FEW] == row[:_FEW]).all(dim=1).nonzero()[:, 0]
    return bool((matrix[near] == row).all(dim=1).sum() > 1)
