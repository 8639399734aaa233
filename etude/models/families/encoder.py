"""BERT, RoBERTa, CodeBERT and their kin, as an `Encoder`; always in fp32."""

import re
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from etude.errors import InputError
from etude.models.cost import Cost
from etude.models.encoder import Encoder
from etude.models.encoder_config import CODE_ENCODER, EncoderConfig, encoder_name
from etude.models.families import shared
from etude.models.families.family import Family, Files, Into, Loaded, NewModel, Pretrained
from etude.models.parts import count_parts, label_tensors
from etude.models.weights import check_twins, read_weights, tensor_shapes
from etude.recipe.model import Model

# Of a classifier from scratch; story 1's encoder.
_WIDTH, _LAYERS, _HEADS = 512, 6, 8
_MASKED_HEAD = re.compile(r"(lm_head|cls\.predictions)\.decoder\.weight")
# Parts of other heads, and buffers that every model makes anew.
_OTHER = re.compile(r"^(lm_head|cls|pooler|classifier|tasks)\.|\.pooler\.|position_ids$|token_type_ids$")


def _check(files: Files, config: EncoderConfig) -> None:
    def place(name: str) -> str:
        if not files.has_labels and _MASKED_HEAD.fullmatch(name):
            return f"{config.family}.embeddings.word_embeddings.weight"
        return encoder_name(name, config.family)

    check_twins(files.path, files.shapes, place)


def _load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int, into: Into) -> Loaded:
    """Without labels the head is that of a masked model. Weights of another head are not used."""
    config = cast(EncoderConfig, pretrained.config)
    config = replace(config, dropout=dropout, attention_dropout=dropout, labels=pretrained.labels)
    _check_body(pretrained, config)
    model, empty = (ENCODER.empty(config, config.labels) for _ in range(2))
    of_labels, drawn = set(label_tensors(model)), dict[str, Tensor]()
    wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    missing, put = set(wanted), into(model)
    for name, tensor in cast(Encoder, empty).draw_weights(seed):
        put(name, tensor)
        if name in of_labels:
            drawn[name] = tensor
    for given, tensor in read_weights(pretrained.path):
        name = encoder_name(given, config.family)
        if name in of_labels:
            tensor = shared.kept_outputs(pretrained, given, tensor, drawn[name])
        if name not in wanted or wanted[name] != tensor.shape:
            continue  # of another head
        put(name, tensor)
        if name not in of_labels or pretrained.kept_labels == config.labels:
            missing.discard(name)
    return model, sorted(missing)


def _from_recipe(section: Model, new: NewModel) -> EncoderConfig:
    width, pad_id, vocab_size = section.n_embd or _WIDTH, new.pad_id, new.vocab_size
    if pad_id is None:  # nothing is padded here, but other tools want an id for it
        pad_id, vocab_size = vocab_size, vocab_size + 1
    return EncoderConfig(
        vocab_size=section.vocab_size or vocab_size,
        n_layer=section.n_layer or _LAYERS,
        n_head=section.n_head or _HEADS,
        n_embd=width,
        n_ffn=section.n_ffn or 4 * width,
        context=new.seq_len,
        type_vocab_size=2,
        dropout=section.dropout,
        attention_dropout=section.dropout,
        pad_id=pad_id,
        family="bert",
        labels=new.labels,
        multi=new.multi,
        tasks=new.tasks,
        code_bias=section.code_bias or "off",
    )


def _make(config: EncoderConfig, labels: int) -> Encoder:
    return Encoder(replace(config, labels=labels))


def _measure(config: EncoderConfig, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    model = ENCODER.empty(config, labels)
    parameters, attended = count_parts(model), float(config.n_layer * config.n_embd * seq_len)
    cost = shared.classifier_cost(model, parameters, adapter, attended)
    if not labels:  # a masked model scores its targets with a layer and the embedding
        each, layer = 4.0 if adapter else 6.0, config.n_embd**2
        head = each * (parameters["embedding"] + layer)
        cost = replace(cost, per_token=cost.per_token - each * layer, per_target=head)
    return parameters, cost


def _hidden(model: Encoder, batch: Any) -> Tensor:
    states: Tensor = model(batch.tokens, lengths=batch.lengths, token_types=batch.types, code=batch.code)
    return states


def _check_body(pretrained: Pretrained, config: EncoderConfig) -> None:
    """Raises: InputError if files lack weights of the body, or have others, before any memory is taken."""
    path, empty = pretrained.path, ENCODER.empty(config, config.labels)
    wanted = {name: list(part.shape) for name, part in empty.named_parameters()}
    body = {name: shape for name, shape in wanted.items() if not _OTHER.search(name)}
    found = set()
    for given, shape in tensor_shapes(path).items():
        name = encoder_name(given, config.family)
        found.add(name)
        if name in body and body[name] != list(shape):
            raise shared.other_shape(path, given, shape, body[name])
        if name not in wanted and name.startswith(f"{config.family}.") and not _OTHER.search(name):
            raise InputError(f"{path} has {given}, unlike its config.json; copy the model again")
    if lost := sorted(set(body) - found):
        raise InputError(f"{path} lacks {lost[0]}, unlike its config.json; copy the model again")


ENCODER = Family(
    name="encoder",
    config=EncoderConfig,
    modules=(Encoder,),
    objectives=("masked", "classification"),
    model_types=("roberta", "bert", CODE_ENCODER),
    takes="BERT, RoBERTa, CodeBERT and their kin",
    sizes=frozenset({"n_layer", "n_head", "n_embd", "n_ffn", "code_bias"}),
    read=lambda files: EncoderConfig.from_hf(files.values),
    check=_check,
    name_of=lambda config, name: encoder_name(name, config.family),
    load=_load,
    from_recipe=_from_recipe,
    with_outputs=lambda config, new: replace(config, labels=new.labels, multi=new.multi, tasks=new.tasks),
    make=_make,
    measure=_measure,
    describe=lambda config, pretrained, facts: config.to_hf(
        label_names=facts.label_names, bos_id=facts.bos_id, eos_id=facts.eos_id
    ),
    blocks=lambda model: list(model.blocks()),
    label_logits=lambda model, batch: model.classify(_hidden(model, batch), batch.lengths, batch.task),
    states=lambda model, batch: _hidden(model, batch).flatten(0, 1),
)
