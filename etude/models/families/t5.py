"""T5, T5 1.1, CodeT5 and CodeT5+, as a `T5`; to score labels, as a `T5Classifier`."""

import re
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.models.cost import Cost, cost_of
from etude.models.families import shared
from etude.models.families.family import Facts, Family, Files, Into, Loaded, NewModel, Pretrained, Reader
from etude.models.packing import send
from etude.models.parts import count_parts, count_products
from etude.models.t5 import T5, T5Classifier
from etude.models.t5_config import T5Config
from etude.models.weights import check_twins
from etude.recipe.model import Model

_EMBEDDING = re.compile(r"(encoder|decoder)\.embed_tokens\.weight")
_PARTS = {"shared": "embedding", "encoder": "encoder", "decoder": "decoder", "lm_head": "head"}


def _read(files: Files) -> T5Config:
    return T5Config.from_hf(files.values, has_head=None if files.has_labels else _has_head(files))


def _check(files: Files, config: T5Config) -> None:
    if not files.has_labels:
        sides = (("encoder", config.n_layer), ("decoder", config.n_decoder_layer))
        lasts = [f"{side}.block.{count - 1}.layer.0.layer_norm.weight" for side, count in sides]
        shared.require_tensors(files, lasts)
        shared.check_shapes(files, ENCODER_DECODER.empty(config), tied=config.tied)
        says_own = files.values.get("tie_word_embeddings") is False
        if not config.tied and config.scaled and not says_own:
            raise shared.other_head(files.path)

    def place(name: str) -> str:
        name = name.removeprefix("transformer.")
        return "shared.weight" if _EMBEDDING.fullmatch(name) else name

    check_twins(files.path, files.shapes, place)


def _load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int, into: Into) -> Loaded:
    config = replace(cast(T5Config, pretrained.config), dropout=dropout)
    model = ENCODER_DECODER.empty(config, pretrained.labels)
    return shared.load(pretrained, model, dtype, seed, into)


def _from_recipe(section: Model, new: NewModel) -> T5Config:
    """n_layer blocks on each side, by default as CodeT5-small; the decoder starts from padding."""
    pad_id, vocab_size = new.pad_id, new.vocab_size
    if pad_id is None:  # a row is added for it
        pad_id, vocab_size = vocab_size, vocab_size + 1
    width, heads = section.n_embd or 512, section.n_head or 8
    return T5Config(
        vocab_size=max(section.vocab_size or 0, vocab_size),
        n_layer=section.n_layer or 6,
        n_decoder_layer=section.n_layer or 6,
        n_head=heads,
        n_embd=width,
        n_ffn=section.n_ffn or 4 * width,
        head_dim=section.head_dim or width // heads,
        tied=section.tied is not False,
        scaled=section.tied is not False,
        dropout=section.dropout,
        start_id=pad_id,
    )


def _make(config: T5Config, labels: int) -> nn.Module:
    return T5Classifier(config, labels) if labels else T5(config)


def _measure(config: T5Config, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    model: Any = ENCODER_DECODER.empty(config, labels)
    width = config.n_head * config.head_dim
    # The target is taken to be as long as the source: each of its tokens sees half of it, and the source.
    encoder, decoder = (
        float(config.n_layer * width * seq_len), config.n_decoder_layer * width * seq_len * 1.5
    )  # fmt: skip
    if labels:  # the text is read on both sides
        parameters = count_parts(model)
        return parameters, shared.classifier_cost(model, parameters, adapter, encoder + decoder)
    sizes = dict.fromkeys(_PARTS.values(), 0)
    for name, parameter in model.named_parameters():
        sizes[_PARTS[name.partition(".")[0]]] += parameter.numel()
    # Keys and values of the source are made of its tokens, once for each block of the decoder.
    across = config.n_decoder_layer * 2 * config.n_embd * width
    head = count_products(model.decoder) - across + config.vocab_size * config.n_embd
    cost = cost_of(
        count_products(model.encoder) + across, head, attended=encoder, at_targets=decoder, adapter=adapter
    )
    return sizes | {"total": sum(sizes.values())}, cost


def _describe(config: T5Config, pretrained: Pretrained | None, facts: Facts) -> dict[str, Any]:
    if pretrained is None:
        return config.to_hf(eos_id=facts.eos_id, pad_id=config.start_id)
    values = shared.describe_pretrained(pretrained, facts)
    if facts.label_names:  # transformers takes the state at the last of these
        values["eos_token_id"] = facts.eos_id
    return values


def _reader(model: T5, prompts: list[list[int]], max_tokens: int) -> Reader:
    """Read sources; the answers start from `start_id`."""
    device, lengths = model.head_weight().device, tuple(map(len, prompts))
    tokens = send(torch.tensor([token for prompt in prompts for token in prompt])[None], device)
    cache = model.start(tokens, lengths, max_tokens)

    def advance(chosen: Tensor) -> Tensor:
        return model.advance(chosen.to(device), cache)

    return Reader(advance(torch.full((len(prompts),), model.config.start_id)), advance, cache.select)


def _blocks(model: T5 | T5Classifier) -> list[nn.Module]:
    whole: Any = getattr(model, "transformer", model)
    return [*whole.encoder.blocks(), *whole.decoder.blocks()]


def _has_head(files: Files) -> bool:
    """True if the files have a head of its own: files made by torch name a tied one, too.

    Raises: InputError if config.json says that they have one, and they do not.
    """
    is_said = files.values.get("tie_word_embeddings") is False
    if not files.shapes:
        return is_said
    if "lm_head.weight" not in files.shapes:
        if is_said:
            wrong = "config.json: tie_word_embeddings is false, but the files have no lm_head.weight"
            advice = "set it to true and scale_decoder_outputs to false if the head is the embedding"
            raise InputError(f"{wrong}; copy it again, or {advice}")
        return False
    return is_said or not shared.is_head_tied(files.path)


ENCODER_DECODER = Family(
    name="encoder-decoder",
    config=T5Config,
    modules=(T5, T5Classifier),
    objectives=("seq2seq", "classification"),
    model_types=("t5",),
    takes="T5, CodeT5, CodeT5+ and their kin",
    has_source=True,
    sizes=frozenset({"n_layer", "n_head", "n_embd", "n_ffn"}),
    read=_read,
    check=_check,
    load=_load,
    from_recipe=_from_recipe,
    make=_make,
    measure=_measure,
    describe=_describe,
    blocks=_blocks,
    label_logits=lambda model, batch: model.classify(
        model(batch.tokens, lengths=batch.lengths), batch.lengths
    ),
    states=lambda model, batch: model.encode(
        batch.tokens.reshape(1, -1), batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens)
    )[0],
    reader=_reader,
)
