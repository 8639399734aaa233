"""The model of a recipe: chosen and counted before it is built, and built."""

from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import nn

from etude.errors import InputError
from etude.models.catalogue import decoder_config
from etude.models.cost import Cost, count_parameters, training_cost
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.encoder_config import EncoderConfig
from etude.models.heads import build_encoder, count_encoder, encoder_config, head_of, load_classifier
from etude.models.hub import Config, Pretrained, count_t5, load_pretrained, meta_model
from etude.models.parts import count_parts
from etude.models.t5 import T5
from etude.models.t5_config import T5Config
from etude.recipe.schema import Model, Recipe

# Families that count positions on from the row behind that of the padding.
_AFTER_PADDING = (
    "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "xmod", "ibert",
    "mpnet", "longformer", "esm",
)  # fmt: skip
# A plan for a machine with more memory than this one is made up to so many times its own.
_MOST_MEMORIES, _MOST_BLOCKS = 64.0, 10_000


@dataclass(frozen=True)
class Size:
    """Exact parameters by part, how many of them are trained, and what training costs."""

    parameters: dict[str, int]
    trainable: int
    cost: Cost


def choose_config(
    recipe: Recipe,
    pretrained: Pretrained | None,
    *,
    vocab_size: int,
    pad_id: int | None,
    labels: tuple[int, bool] | None,
    tasks: tuple[tuple[str, int], ...] = (),
) -> Config | None:
    """The configuration that a recipe asks for; None where the model runs through transformers.

    labels: how many a classifier has, and whether several may hold. tasks: as in EncoderConfig. Raises:
    InputError if sizes do not fit.
    """
    section, seq_len = recipe.model, recipe.train.seq_len
    config = pretrained.config if pretrained is not None else None
    if pretrained is not None and seq_len > (longest := longest_sample(pretrained)):
        raise InputError(
            f"train.seq_len is {seq_len}, but {section.from_} reads {longest} tokens at most; use {longest}"
        )
    if labels is not None or recipe.train.objective == "masked" or tasks:
        names, multi = labels or (0, False)
        if pretrained is None:
            scratch = encoder_config(
                section, vocab_size=vocab_size, seq_len=seq_len, pad_id=pad_id, labels=names, multi=multi
            )
            check_memory(scratch, _MOST_MEMORIES)
            return replace(scratch, tasks=tasks)
        if isinstance(config, EncoderConfig):
            return replace(config, labels=names, multi=multi, tasks=tasks)
        if tasks:
            raise InputError(
                f"{section.from_} is no BERT, RoBERTa or their kin, which several tasks need; name one"
            )
        return config
    if pretrained is not None:
        return config
    chosen: Config
    if section.kind == "encoder-decoder":
        chosen = _t5_config(section, vocab_size=vocab_size, pad_id=pad_id)
    else:
        chosen = decoder_config(section, vocab_size=vocab_size, seq_len=seq_len)
    check_memory(chosen, _MOST_MEMORIES)
    return chosen


def check_memory(config: Config, memories: float = 1.0) -> None:
    """Raises: InputError if the weights of a new model take more than so many times the memory of this
    machine.

    Reckoned by arithmetic, before anything is built. A plan may be for a larger machine, but not for any.
    """
    blocks = config.n_layer + (config.n_decoder_layer if isinstance(config, T5Config) else 0)
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


def longest_sample(pretrained: Pretrained) -> int:
    """Tokens that a pretrained model reads at most; T5 has no such number, whatever its config.json says."""
    config, values = pretrained.config, pretrained.hf_config
    if isinstance(config, T5Config):
        return 2**30
    if isinstance(config, DecoderConfig):
        return config.longest
    if config is not None:
        return config.context
    context = int(values.get("max_position_embeddings") or values.get("n_positions") or 2**30)
    return context - (
        int(values.get("pad_token_id") or 1) + 1 if values.get("model_type") in _AFTER_PADDING else 0
    )


def measure(config: Config | None, pretrained: Pretrained | None, *, seq_len: int, adapter: int) -> Size:
    """What a model comes to in samples of seq_len tokens, with an adapter of so many parameters, or 0 for
    none.

    Beside an adapter the head of a classifier is trained.
    """
    # Trained weights cost 6 operations a token, frozen ones 4.
    each, whole = 4.0 if adapter else 6.0, 0
    if isinstance(config, EncoderConfig):
        parameters = count_encoder(config)
        whole = parameters["head"]
        scored = 6.0 * whole if config.labels else each * parameters["embedding"]
        cost = Cost(each * parameters["rest"] + 6.0 * adapter, scored)
    elif pretrained is not None and pretrained.labels:
        parameters = count_parts(meta_model(pretrained))
        whole = parameters["head"]
        cost = Cost(each * parameters["rest"] + 6.0 * adapter, 6.0 * whole)
        if isinstance(config, DecoderConfig):
            cost = replace(cost, per_token=training_cost(config, seq_len, adapter=adapter or None).per_token)
    elif isinstance(config, T5Config):
        parameters = count_t5(config)
        head = config.vocab_size * config.n_embd
        cost = Cost(each * parameters["encoder"] + 6.0 * adapter, each * (parameters["decoder"] + head))
    elif config is not None:
        parameters, cost = count_parameters(config), training_cost(config, seq_len, adapter=adapter or None)
    else:
        assert pretrained is not None
        parameters = dict(pretrained.parameters)
        cost = Cost(each * (parameters["total"] - parameters.get("embedding", 0)) + 6.0 * adapter, 0.0)
    trainable = adapter + whole if adapter else parameters["total"]
    if adapter:
        parameters = parameters | {"adapter": adapter, "total": parameters["total"] + adapter}
    return Size(parameters, trainable, cost)


def build(
    recipe: Recipe, config: Config | None, pretrained: Pretrained | None, dtype: torch.dtype
) -> tuple[nn.Module, list[str]]:
    """The model with its first weights, frozen ones in `dtype`, and the names of those that no file had.

    Raises: InputError if a file of the pretrained model is damaged.
    """
    dropout, seed = recipe.model.dropout, recipe.seed
    model: nn.Module
    if pretrained is not None and pretrained.labels:
        kept = dtype if recipe.adapter else torch.float32
        return load_classifier(pretrained, dtype=kept, dropout=dropout, seed=seed)
    if isinstance(config, EncoderConfig):
        if pretrained is None:
            check_memory(config)
        return build_encoder(replace(config, dropout=dropout, attention_dropout=dropout), seed, pretrained)
    if pretrained is not None:
        # What is trained stays in fp32; what is frozen needs no more digits than it is computed in.
        return load_pretrained(
            pretrained, dtype=dtype if recipe.adapter else torch.float32, dropout=dropout
        ), []
    assert config is not None
    check_memory(config)
    model = T5(config) if isinstance(config, T5Config) else Decoder(config)
    model.init_weights(seed)
    return model, []


def describe_config(
    config: Config | None,
    pretrained: Pretrained | None,
    *,
    label_names: tuple[str, ...],
    multi: bool = False,
    bos_id: int | None,
    eos_id: int,
) -> dict[str, Any] | None:
    """What goes into config.json, so that other tools load the weights; None for a module of the
    user's own."""
    if isinstance(config, EncoderConfig):
        names = label_names if config.labels else None
        return config.to_hf(head_of(config), label_names=names, bos_token_id=bos_id, eos_token_id=eos_id)
    if (
        pretrained is not None
    ):  # as the model came; only the number format, and what a classifier says, are ours now
        values = {**pretrained.hf_config, "dtype": "float32"}
        values.pop("torch_dtype", None)  # the older name of the same
        if isinstance(config, T5Config) and label_names:  # transformers takes the state at the last of these
            values["eos_token_id"] = eos_id
        return values | (_label_words(label_names, multi) if label_names else {})
    if isinstance(config, T5Config):
        return config.to_hf(eos_token_id=eos_id, pad_token_id=config.start_id)
    return None if config is None else config.to_hf(eos_token_id=eos_id)


def _label_words(names: tuple[str, ...], multi: bool) -> dict[str, Any]:
    return {
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
        "problem_type": f"{'multi' if multi else 'single'}_label_classification",
    }


def _t5_config(model: Model, *, vocab_size: int, pad_id: int | None) -> T5Config:
    """The encoder-decoder that a recipe asks for, n_layer blocks on each side; by default of the size of
    CodeT5-small.

    vocab_size, pad_id: of the tokenizer. The decoder starts from padding, for which a row is added if there
    is none. Raises: InputError if keys do not fit each other.
    """
    if pad_id is None:
        pad_id, vocab_size = vocab_size, vocab_size + 1
    width, heads = model.n_embd or 512, model.n_head or 8
    return T5Config(
        vocab_size=max(model.vocab_size or 0, vocab_size),
        n_layer=model.n_layer or 6,
        n_decoder_layer=model.n_layer or 6,
        n_head=heads,
        n_embd=width,
        n_ffn=model.n_ffn or 4 * width,
        head_dim=model.head_dim or width // heads,
        tied=model.tied is not False,
        scaled=model.tied is not False,
        dropout=model.dropout,
        start_id=pad_id,
    )
