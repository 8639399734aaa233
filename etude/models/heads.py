"""Models with the head of a task: encoders from a recipe's sizes or from files, and classifiers of every
family.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.models import foreign
from etude.models.decoder import Decoder
from etude.models.encoder import Encoder
from etude.models.encoder_config import EncoderConfig, Head, encoder_name
from etude.models.hub import Pretrained, empty_model
from etude.models.parts import count_parts, head_modules, keep_labels, label_tensors
from etude.models.t5 import T5Classifier
from etude.models.weights import REMADE, read_weights, set_weight, tensor_shapes
from etude.recipe.schema import Model

# Of a classifier from scratch; story 1's encoder.
_WIDTH, _LAYERS, _HEADS = 512, 6, 8
# Parts of other heads, and buffers that every model makes anew.
_OTHER = re.compile(r"^(lm_head|cls|pooler|classifier|tasks)\.|\.pooler\.|position_ids$|token_type_ids$")
_OTHER_HEADS = re.compile(r"^(lm_head|score|classification_head)\.")


def encoder_config(
    recipe: Model, *, vocab_size: int, seq_len: int, pad_id: int | None, labels: int, multi: bool
) -> EncoderConfig:
    """An encoder from scratch with the sizes of a recipe.

    Raises: InputError if they do not fit each other.
    """
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


def build_encoder(
    config: EncoderConfig, seed: int, pretrained: Pretrained | None
) -> tuple[Encoder, list[str]]:
    """The model, and the names of its weights that no file had and that are drawn by chance.

    Without labels its head is that of a masked model. Weights of another head are not used, and of one for
    other labels the outputs that `pretrained` says. Raises: InputError if a file lacks weights of the body,
    or has them in another shape.
    """
    if pretrained is not None:
        _check_body(pretrained.path, config)
    model = Encoder(config, head_of(config))
    model.init_weights(seed)
    if pretrained is None:
        return model, []
    wanted, of_labels = dict(model.named_parameters()), set(label_tensors(model))
    missing = set(wanted)
    for given, tensor in read_weights(pretrained.path):
        name = encoder_name(given, config.family)
        if name in of_labels:
            tensor = _keep_labels(pretrained, given, tensor, wanted[name])
        if name not in wanted or wanted[name].shape != tensor.shape:
            continue  # of another head
        with torch.no_grad():
            wanted[name].copy_(tensor)
        if name not in of_labels or pretrained.kept_labels == config.labels:
            missing.discard(name)
    return model, sorted(missing)


def load_classifier(
    pretrained: Pretrained, *, dtype: torch.dtype, dropout: float, seed: int
) -> tuple[nn.Module, list[str]]:
    """A pretrained model with a head for its `labels`, and the names of weights that no file had, drawn by
    the seed.

    Weights of another head are not used, and of one for other labels the outputs that `pretrained` says.
    Raises: InputError if a file is damaged, or has another body than its config.json says.
    """
    if pretrained.config is None:
        pad_id = pretrained.hf_config.get("pad_token_id") or 0
        names, kept = pretrained.label_names, pretrained.kept_labels
        return foreign.load_classifier(
            pretrained.path, pretrained.labels, pad_id, theirs=len(names), kept=kept, dtype=dtype,
            dropout=dropout, seed=seed,
        )  # fmt: skip
    if isinstance(pretrained.config, EncoderConfig):
        config = replace(
            pretrained.config, dropout=dropout, attention_dropout=dropout, labels=pretrained.labels
        )
        return build_encoder(config, seed, pretrained)
    model = empty_model(replace(pretrained.config, dropout=dropout), pretrained.labels)
    wanted, heads = dict(model.named_parameters()), tuple(f"{name}." for name in head_modules(model))
    body = next(name for name, _ in model.named_children())
    missing, of_labels = set(wanted), dict.fromkeys(label_tensors(model), torch.empty(0))
    for given, tensor in read_weights(pretrained.path):
        name = (
            given if given in wanted else f"{body}.{given}"
        )  # files of the bare body, and of T5, leave it out
        if name in of_labels:
            of_labels[name] = tensor
        elif name in wanted and wanted[name].shape == tensor.shape:
            set_weight(model, name, tensor, dtype)
            missing.discard(name)
        elif name in wanted and not name.startswith(heads):
            expected = list(wanted[name].shape)
            raise InputError(
                f"{pretrained.path}: {given} is {list(tensor.shape)}, but config.json says {expected}"
            )
        elif name not in wanted and not (
            _OTHER_HEADS.match(given) or REMADE.search(given.removeprefix(f"{body}."))
        ):
            raise InputError(f"{pretrained.path} has {given}, unlike its config.json; copy the model again")
    if lost := sorted(name for name in missing if not name.startswith(heads)):
        raise InputError(f"{pretrained.path} lacks {lost[0]}, unlike its config.json; copy the model again")
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(missing):
        drawn = torch.zeros(wanted[name].shape)
        if not name.endswith("bias"):
            drawn.normal_(std=0.02, generator=generator)
        if len(tensor := of_labels.get(name, drawn[:0])):
            drawn = _keep_labels(pretrained, name, tensor, drawn)
        set_weight(model, name, drawn, dtype)
    if pretrained.kept_labels == pretrained.labels:
        missing -= {name for name, tensor in of_labels.items() if len(tensor)}
    return model, sorted(missing)


def label_logits(
    model: nn.Module,
    tokens: Tensor,
    lengths: tuple[int, ...] | None,
    positions: Tensor | None,
    token_types: Tensor | None,
    *,
    code: Tensor | None = None,
    task: str = "",
) -> Tensor:
    """Logits (n, labels) of the samples in tokens (B, T); arguments as for `Encoder` and
    `Decoder.forward`."""
    if not hasattr(model, "classify"):
        return foreign.label_logits(model, tokens, lengths, token_types)
    if isinstance(model, Decoder):
        hidden = model(tokens, positions=positions, lengths=lengths)
    elif isinstance(model, T5Classifier):
        hidden = model(tokens, lengths=lengths)
    else:
        hidden = model(
            tokens, lengths=lengths, token_types=token_types, **({} if code is None else {"code": code})
        )
    of_task = {"task": task} if task else {}
    logits: Tensor = model.classify(hidden, lengths, **of_task)  # type: ignore[operator]
    return logits


def count_encoder(config: EncoderConfig) -> dict[str, int]:
    """Exact parameters by part, from the meta device."""
    with torch.device("meta"):
        return count_parts(Encoder(config, head_of(config)))


def _check_body(path: Path, config: EncoderConfig) -> None:
    """Raises: InputError if files lack weights of an encoder's body, or have others, before any memory is
    taken.
    """
    with torch.device("meta"):
        wanted = {
            name: list(part.shape) for name, part in Encoder(config, head_of(config)).named_parameters()
        }
    body = {name: shape for name, shape in wanted.items() if not _OTHER.search(name)}
    found = set()
    for given, shape in tensor_shapes(path).items():
        name = encoder_name(given, config.family)
        found.add(name)
        if name in body and body[name] != list(shape):
            raise InputError(f"{path}: {given} is {list(shape)}, but config.json says {body[name]}")
        if name not in wanted and name.startswith(f"{config.family}.") and not _OTHER.search(name):
            raise InputError(f"{path} has {given}, unlike its config.json; copy the model again")
    if lost := sorted(set(body) - found):
        raise InputError(f"{path} lacks {lost[0]}, unlike its config.json; copy the model again")


def head_of(config: EncoderConfig) -> Head:
    """What a trained encoder ends in; one for several tasks has their heads beside it."""
    if config.tasks:
        return None if all(labels for _, labels in config.tasks) else "masked"
    return "classification" if config.labels else "masked"


def _keep_labels(pretrained: Pretrained, name: str, given: Tensor, drawn: Tensor) -> Tensor:
    theirs, kept = len(pretrained.label_names), pretrained.kept_labels
    return keep_labels(f"{pretrained.path}: {name}", given, drawn, theirs=theirs, kept=kept)
