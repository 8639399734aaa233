"""The model of a recipe: chosen and counted before it is built, and built."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.models.cost import Cost
from etude.models.families.family import Config, Into, NewModel, Pretrained
from etude.models.families.table import family_named, family_of
from etude.models.layers import can_recompute, fill, set_recompute
from etude.models.lora import add_adapter
from etude.models.parts import find_targets, head_modules
from etude.models.pretrained import load_pretrained
from etude.models.weights import in_place
from etude.recipe.schema import Recipe

# A plan for a machine with more memory than this one is made up to so many times its own.
_MOST_MEMORIES, _MOST_BLOCKS = 64.0, 10_000


@dataclass(frozen=True)
class Size:
    """Exact parameters by part, how many of them are trained, and what training costs."""

    parameters: dict[str, int]
    trainable: int
    cost: Cost


def choose_config(recipe: Recipe, pretrained: Pretrained | None, new: NewModel) -> Config:
    """The configuration that a recipe asks for. Raises: InputError if sizes do not fit."""
    section = recipe.model
    chosen: Config
    if pretrained is None:
        from_recipe = family_named(section.kind).from_recipe
        assert from_recipe is not None, section.kind
        chosen = from_recipe(section, new)
        check_memory(chosen, _MOST_MEMORIES)
        return chosen
    config = pretrained.config
    if recipe.train.seq_len > config.longest:
        wrong = f"train.seq_len is {recipe.train.seq_len}, but {section.from_} reads {config.longest} tokens"
        raise InputError(f"{wrong} at most; use {config.longest}")
    if (with_outputs := family_of(config).with_outputs) is not None:
        chosen = with_outputs(config, new)
        return chosen
    if new.tasks:
        wrong = "is no BERT, RoBERTa or their kin, which several tasks need"
        raise InputError(f"{section.from_} {wrong}; name one")
    return config


def check_memory(config: Any, memories: float = 1.0) -> None:
    """Refuse a new model whose weights take more than so many times the memory of this machine.

    It is arithmetic, before anything is built. A plan may be for a larger machine, but not for any.
    Raises: InputError.
    """
    blocks = config.n_layer + getattr(config, "n_decoder_layer", 0)
    least = blocks * 2 * config.n_embd * config.n_ffn + config.vocab_size * config.n_embd
    need, have = 4 * least, psutil.virtual_memory().total
    if torch.cuda.is_available():
        have = max(have, torch.cuda.get_device_properties(0).total_memory)
    if need > memories * have or blocks > _MOST_BLOCKS:
        raise InputError(
            f"[model]: {blocks:,} blocks of width {config.n_embd:,} and {config.vocab_size:,} tokens are "
            f"{least:,} weights or more, {need / 1e9:,.1f} GB; this machine has {have / 1e9:,.1f} GB; use a "
            "smaller n_layer, n_embd, n_ffn or vocab_size"
        )


def measure(config: Config, pretrained: Pretrained | None, *, seq_len: int, adapter: int) -> Size:
    """The size of a model in samples of seq_len tokens, and with an adapter of so many parameters, or 0."""
    labels = _labels_of(config, pretrained)
    parameters, cost = family_of(config).measure(config, labels, seq_len, adapter)
    if not adapter:
        return Size(parameters, parameters["total"], cost)
    trainable = adapter + (parameters["head"] if labels else 0)
    return Size(parameters | {"adapter": adapter, "total": parameters["total"] + adapter}, trainable, cost)


def build(
    recipe: Recipe, config: Config, pretrained: Pretrained | None, dtype: torch.dtype, into: Into = in_place
) -> tuple[nn.Module, list[str]]:
    """The model with its first weights, frozen ones in `dtype`, and the names of those that no file had.

    into: where those of a pretrained model of a family of etude go.
    Raises: InputError if a file of the pretrained model is damaged.
    """
    if pretrained is not None:
        # What is trained stays in fp32; what is frozen needs no more digits than it is computed in.
        kept = dtype if recipe.adapter else torch.float32
        chosen = replace(pretrained, config=config)
        return load_pretrained(chosen, dtype=kept, dropout=recipe.model.dropout, seed=recipe.seed, into=into)
    check_memory(config)
    model = family_of(config).make(config, _labels_of(config, None))
    fill(model, draw_weights(model, recipe.seed))
    return model, []


def draw_weights(model: Any, seed: int) -> Iterator[tuple[str, Tensor]]:
    """The first weights of a new model, which may lie on the meta device or in pieces, one after another."""
    weights: Iterator[tuple[str, Tensor]] = model.draw_weights(seed)
    return weights


def adapt(recipe: Recipe, model: nn.Module) -> None:
    """Put the adapter of a recipe on a model, and let its blocks be computed again if that is asked for."""
    if recipe.adapter is not None:
        targeted, whole = find_targets(model, recipe.adapter.targets), head_modules(model)
        add_adapter(model, dict.fromkeys(targeted, recipe.adapter), recipe.seed, whole=whole)
    if recipe.train.activation_checkpointing and (can_recompute(model) or recipe.model.from_ is not None):
        set_recompute(model, True)


def _labels_of(config: Config, pretrained: Pretrained | None) -> int:
    """Outputs of the model as a classifier, 0 if it is none."""
    return int(getattr(config, "labels", 0) if pretrained is None else pretrained.labels)
