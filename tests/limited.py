"""Losses with little memory, or that break; as a program, one rank of a run with it: recipe (JSON), runs, the limited rank."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import etude as api
from etude.engine.batch import DeviceBatch
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options


def limited(most: int) -> Callable[..., Any]:
    """A loss for which micro-batches over a size have no memory, as of a device."""

    def loss(model: Any, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
        logits = api.logits(model, batch).flatten(0, 1)
        labels = batch.labels.flatten()
        total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
        if len(batch.tokens) > most:
            total.backward()  # a part of the step is done by then
            raise torch.OutOfMemoryError("no memory for these")
        return total, int((labels >= 0).sum())

    return loss


def failing(at: int, most: int = 99) -> Callable[..., Any]:
    """A loss without memory for the micro-batch of a number, or from that on for those over a size."""
    calls: list[int] = []

    def loss(model: Any, batch: DeviceBatch) -> Any:
        calls.append(len(batch.tokens)) if model.training else None
        is_short = model.training and (len(calls) == at or (len(calls) > at and len(batch.tokens) > most))
        return limited(0 if is_short else 99)(model, batch)

    return loss


def fragile_loss(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """NaN once a weight of the embedding is beyond 0.3, which the rate that a finding names does not reach."""
    said, keep = api.logits(model, batch), batch.labels != -100
    losses = F.cross_entropy(said[keep].float(), batch.labels[keep], reduction="sum")
    largest = model.get_parameter("model.embed_tokens.weight").detach().abs().max()
    return losses * torch.where(largest > 0.3, torch.nan, 1.0), keep.sum()


if __name__ == "__main__":
    recipe = recipe_from(json.loads(Path(sys.argv[1]).read_text()))
    most = 2 if os.environ["RANK"] == sys.argv[3] else 99
    run_recipe(recipe, Options(runs=Path(sys.argv[2]), loss=limited(most)))
