"""Encoders with the head of a task: from a recipe's sizes, or from the files of BERT, RoBERTa and their kin."""

import re
from typing import Any

import torch

from etude.errors import InputError
from etude.models.encoder import Encoder, EncoderConfig, Head
from etude.models.hub import Pretrained, read_weights
from etude.recipe.schema import Model

# Of a classifier from scratch; story 1's encoder.
_WIDTH, _LAYERS, _HEADS = 512, 6, 8
# Parts of other heads, and buffers that every model makes anew.
_OTHER = re.compile(r"^(lm_head|cls|pooler|classifier|tasks)\.|\.pooler\.|position_ids$|token_type_ids$")


def encoder_config(
    recipe: Model, *, vocab_size: int, seq_len: int, pad_id: int | None, labels: int, multi: bool
) -> EncoderConfig:
    """An encoder from scratch with the sizes of a recipe. Raises: InputError if they do not fit each other."""
    width = recipe.n_embd or _WIDTH
    if pad_id is None:  # nothing is padded here, but other tools want an id for it
        pad_id, vocab_size = vocab_size, vocab_size + 1
    return EncoderConfig(
        vocab_size=recipe.vocab_size or vocab_size,
        n_layer=recipe.n_layer or _LAYERS,
        n_head=recipe.n_head or _HEADS,
        n_embd=width,
        n_ffn=recipe.n_ffn or 4 * width,
        context=seq_len,
        type_vocab_size=2,
        dropout=recipe.dropout,
        attention_dropout=recipe.dropout,
        pad_id=pad_id,
        family="bert",
        labels=labels,
        multi=multi,
        code_bias=recipe.code_bias or "off",
    )


def build_encoder(config: EncoderConfig, seed: int, pretrained: Pretrained | None) -> tuple[Encoder, list[str]]:
    """The model, and the names of its weights that no file had and that are drawn by chance.

    Without labels its head is that of a masked model.
    Weights of another head, or of a classifier for other labels, are not used. Raises: InputError if a file lacks
    weights of the body, or has them in another shape.
    """
    model = Encoder(config, head_of(config))
    model.init_weights(seed)
    if pretrained is None:
        return model, []
    wanted = dict(model.named_parameters())
    missing = set(wanted)
    for given, tensor in read_weights(pretrained.path):
        name = _our_name(given, config.family)
        if name not in wanted or wanted[name].shape != tensor.shape:
            if name in wanted and not _OTHER.search(name):
                expected = list(wanted[name].shape)
                raise InputError(f"{pretrained.path}: {given} is {list(tensor.shape)}, but config.json says {expected}")
            continue
        with torch.no_grad():
            wanted[name].copy_(tensor)
        missing.discard(name)
    if lost := sorted(name for name in missing if not _OTHER.search(name)):
        raise InputError(f"{pretrained.path} lacks {lost[0]}, unlike its config.json; copy the model again")
    return model, sorted(missing)


def count_encoder(config: EncoderConfig) -> dict[str, int]:
    """Exact parameters by part, from the meta device."""
    with torch.device("meta"):
        model: Any = Encoder(config, head_of(config))
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.head_weight().numel()
    return {"embedding": embedding, "rest": total - embedding, "total": total}


def head_of(config: EncoderConfig) -> Head:
    """What a trained encoder ends in; one for several tasks has their heads beside it."""
    if config.tasks:
        return None if all(labels for _, labels in config.tasks) else "masked"
    return "classification" if config.labels else "masked"


def _our_name(name: str, family: str) -> str:
    """Files of the bare body leave out the family; old ones call the parts of a norm gamma and beta."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"{family}.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
