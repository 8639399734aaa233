"""Training as transformers and torch do it, to hold ours against."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.data.loader import sample_ids
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


def train_plainly(
    recipe: Recipe,
    split: Any,
    parameters: Iterable[torch.nn.Parameter],
    loss_of: Callable[[Any], torch.Tensor],
) -> list[float]:
    """Their side: the loss of each step over the same samples, where `loss_of` takes the ids of a step."""
    optimizer = adamw(parameters, recipe.optim.learning_rate)
    settings: Any = {
        "n": len(split),
        "global_batch_size": recipe.train.global_batch_size,
        "seed": recipe.seed,
    }
    return [
        update(optimizer, loss_of(sample_ids(step, **settings))) for step in range(recipe.train.steps or 0)
    ]


def label_loss(model: Any, samples: list[Any]) -> torch.Tensor:
    """The loss of transformers for labelled samples, of one label a row or of several."""
    classes = torch.tensor(np.stack([sample.classes for sample in samples]))
    multi = model.config.problem_type == "multi_label_classification"
    loss: torch.Tensor = model(
        **padded(samples, model), labels=classes.float() if multi else classes.long().argmax(1)
    ).loss
    return loss


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
