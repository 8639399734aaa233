"""Qwen3, Qwen2, Mistral and Llama, as a `Decoder`."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from etude.models import captured, packed
from etude.models.cache import Cache
from etude.models.catalogue import decoder_config
from etude.models.cost import Cost, count_parameters, training_cost
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.families import shared
from etude.models.families.family import Facts, Family, Files, Into, Loaded, Pretrained, Reader
from etude.models.lora import find_layers
from etude.models.packing import find_lasts, send
from etude.models.parts import count_parts
from etude.models.weights import check_twins
from etude.prefixes import ANY_LENGTH, Sharing, lay_row
from etude.recipe.model import Model


def _check(files: Files, config: DecoderConfig) -> None:
    if files.has_labels:
        check_twins(files.path, files.shapes, lambda name: name.removeprefix("model."))
        return
    shared.require_tensors(files, [f"model.layers.{config.n_layer - 1}.input_layernorm.weight"])
    shared.check_shapes(files, DECODER.empty(config), tied=config.tied)
    if config.tied and "lm_head.weight" in files.shapes and not shared.is_head_tied(files.path):
        raise shared.other_head(files.path)


def _load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int, into: Into) -> Loaded:
    config = replace(cast(DecoderConfig, pretrained.config), dropout=dropout)
    return shared.load(pretrained, DECODER.empty(config, pretrained.labels), dtype, seed, into)


def _measure(config: DecoderConfig, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    cost = training_cost(config, seq_len, adapter=adapter or None)
    if not labels:
        return count_parameters(config), cost
    parameters = count_parts(DECODER.empty(config, labels))
    return parameters, replace(cost, per_target=6.0 * parameters["head"])


def _describe(config: DecoderConfig, pretrained: Pretrained | None, facts: Facts) -> dict[str, Any]:
    if pretrained is not None:
        return shared.describe_pretrained(pretrained, facts)
    return config.to_hf(eos_id=facts.eos_id)


def _label_logits(model: Decoder, batch: Any) -> Tensor:
    row = batch.row
    hidden = model(batch.tokens, positions=batch.positions, lengths=batch.lengths, row=row)
    return model.classify(hidden, batch.lengths if row is None else (1,) * hidden.shape[1])


def _sharing(model: Decoder, is_training: bool, drops_alike: bool) -> Sharing:
    """Attention in parts is of CPUs, whole windows and no dropout; a compiled model knows no rows."""
    if model.is_compiled:
        return Sharing(None, "the model is compiled")
    device = model.model.norm.weight.device.type
    if device != "cpu":
        return Sharing(0, f"attention in parts is of CPUs, not of {device}")
    adapters = find_layers(model).values()
    drops = model.config.dropout or (not drops_alike and any(layer.dropout for layer in adapters))
    if is_training and drops:
        return Sharing(0, "under dropout each sample has a mask of its own")
    windows = [model.config.window(layer) for layer in range(model.config.n_layer)]
    return Sharing(min((window for window in windows if window is not None), default=ANY_LENGTH))


def _reader(model: Decoder, prompts: list[list[int]], max_tokens: int) -> Reader:
    """Read prompts end to end without padding, and what they begin with in common once.

    The cache has room for so many tokens behind the longest.
    """
    device, lengths = model.head_weight().device, tuple(map(len, prompts))
    positions = send(torch.cat([torch.arange(length) for length in lengths])[None], device)
    flat = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    row = lay_row(flat, lengths, np.cumsum(lengths) - 1, _sharing(model, False, True).up_to or 0)
    on_device = None if row is None else row.map(lambda array: send(torch.from_numpy(array), device))
    tokens = send(torch.from_numpy(flat)[None], device)
    # Under autocast keys and values come in its dtype; weights do not.
    is_mixed = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if is_mixed else model.model.norm.weight.dtype
    cache = Cache(model.config, len(prompts), max(lengths) + max_tokens, dtype=dtype, device=device)
    # forward, not __call__: a compiled model would be compiled again for each length.
    hidden = model.forward(tokens, positions=positions, lengths=lengths, cache=cache, row=on_device)[0]
    logits = model.head(hidden if row is not None else hidden[find_lasts(lengths, device)])
    if packed.is_worth_it(model, len(prompts)):
        return Reader(logits, packed.TokenReader(model, cache))
    if captured.is_worth_it(model, max_tokens):
        return Reader(logits, captured.GraphReader(model, cache))
    return Reader(logits, lambda chosen: model.advance(chosen.to(device), cache))


DECODER = Family(
    name="decoder",
    config=DecoderConfig,
    modules=(Decoder,),
    objectives=("causal", "classification"),
    model_types=("qwen3", "qwen2", "mistral", "llama"),
    takes="Qwen3, Qwen2, Mistral, Llama and their kin",
    sizes=frozenset(Model.model_fields) - {"sliding_window"},  # which layer_window may say too
    stacks=True,
    joins=True,
    read=lambda files: DecoderConfig.from_hf(files.values),
    check=_check,
    load=_load,
    from_recipe=lambda section, new: decoder_config(section, vocab_size=new.vocab_size, seq_len=new.seq_len),
    extend=DecoderConfig.extend,
    make=Decoder,
    measure=_measure,
    describe=_describe,
    blocks=lambda model: list(model.model.layers),
    label_logits=_label_logits,
    states=lambda model, batch: model(batch.tokens, positions=batch.positions, lengths=batch.lengths).flatten(
        0, 1
    ),
    sharing=_sharing,
    reader=_reader,
)
