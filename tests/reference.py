"""Training as transformers and torch do it, to hold ours against."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from etude.recipe.schema import Recipe
from etude.run import Training
from etude.start import Options


def train(recipe: Recipe, runs: Path) -> tuple[Training, list[float]]:
    """Our side: a run to its end, and the loss of each step."""
    training = Training(recipe, Options(runs=runs))
    return training, [float(step.measured[0] / step.measured[1]) for step in training]


def adamw(parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    """torch's AdamW with a decay of 0.01 on what has two dimensions or more."""
    each = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in each if parameter.dim() >= 2], "weight_decay": 0.01},
        {"params": [parameter for parameter in each if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), eps=1e-8)


def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    """One step with gradients clipped at a norm of 1; returns the loss."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(
        [each for group in optimizer.param_groups for each in group["params"]], 1.0
    )
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def padded(samples: list[Any], model: Any) -> dict[str, torch.Tensor]:
    """Labelled samples as transformers reads them: padded to the longest, with a mask and types of pairs."""
    longest = max(len(sample.tokens) for sample in samples)
    tokens = torch.full((len(samples), longest), model.config.pad_token_id)
    mask, types = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row, sample in enumerate(samples):
        tokens[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        mask[row, : len(sample.tokens)] = 1
        types[row, sample.second : len(sample.tokens)] = 1
    given = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    return {"input_ids": tokens, "attention_mask": mask, **given}
