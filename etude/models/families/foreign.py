"""All other models, which run through transformers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.errors import InputError
from etude.models import foreign
from etude.models.cost import Cost
from etude.models.families import shared
from etude.models.families.family import Facts, Family, Files, Loaded, Pretrained, Reader
from etude.models.packing import find_lasts
from etude.models.parts import count_parts

# Families that count positions on from the row behind that of the padding.
_AFTER_PADDING = (
    "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "xmod", "ibert",
    "mpnet", "longformer", "esm",
)  # fmt: skip
_NO_LIMIT = 2**30


@dataclass(frozen=True)
class ForeignConfig:
    """A model that transformers builds from the config.json in a folder.

    parameters  exact, by part; empty for a classifier, whose labels are counted later
    classifier  values of config.json that make it a classifier's
    """

    path: Path
    longest: int
    parameters: dict[str, int] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=dict)


def _read(files: Files) -> ForeignConfig:
    parameters, classifier, values = {}, {}, files.values
    if files.has_labels:
        classifier = _as_classifier(files.path)
    else:
        parameters = foreign.count_parameters(files.path, files.shapes)
    longest = int(values.get("max_position_embeddings") or values.get("n_positions") or _NO_LIMIT)
    if values.get("model_type") in _AFTER_PADDING:
        longest -= int(values.get("pad_token_id") or 1) + 1
    return ForeignConfig(files.path, longest, parameters, classifier)


def _load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int) -> Loaded:
    if not pretrained.labels:
        return foreign.load_causal(pretrained.path, dtype, dropout), []
    pad_id, names = pretrained.hf_config.get("pad_token_id") or 0, pretrained.label_names
    return foreign.load_classifier(
        pretrained.path, pretrained.labels, pad_id, theirs=len(names), kept=pretrained.kept_labels,
        dtype=dtype, dropout=dropout, seed=seed,
    )  # fmt: skip


def _make(config: ForeignConfig, labels: int) -> nn.Module:
    return foreign.empty_model(config.path, labels)


def _measure(config: ForeignConfig, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    if labels:
        parameters = count_parts(_make(config, labels))
        return parameters, shared.classifier_cost(parameters, adapter)
    parameters = dict(config.parameters)
    # Trained weights cost 6 operations a token, frozen ones 4.
    body = parameters["total"] - parameters.get("embedding", 0)
    return parameters, Cost((4.0 if adapter else 6.0) * body + 6.0 * adapter, 0.0)


def _describe(config: ForeignConfig, pretrained: Pretrained | None, facts: Facts) -> dict[str, Any]:
    return shared.describe_pretrained(cast(Pretrained, pretrained), facts)


def _as_classifier(path: Path) -> dict[str, Any]:
    """The class of the classifier, and its id for padding."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    theirs = foreign.read_config(path, 2)
    padding = getattr(theirs.get_text_config(), "pad_token_id", None)
    values = {"architectures": [CLASSES[theirs.model_type]]}
    return values if padding is None else values | {"pad_token_id": padding}


def _context(model: Any) -> int:
    config = model.config
    return int(
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or _NO_LIMIT
    )


def _blocks(model: Any) -> list[nn.Module]:
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]


def _label_logits(model: Any, batch: Any) -> Tensor:
    return foreign.label_logits(model, batch.tokens, batch.lengths, batch.types)


def _reader(model: Any, prompts: list[list[int]], max_tokens: int) -> Reader:
    """Read prompts of different lengths beside each other where the family allows it."""
    if max(map(len, prompts)) + max_tokens > foreign.fixed_until(model):
        return _read_again(model, prompts)
    is_paddable = model.config.model_type in foreign.PADDABLE_DECODERS
    if is_paddable or len(set(map(len, prompts))) == 1:
        return _read_side_by_side(model, prompts)
    readers = [_read_side_by_side(model, [prompt]) for prompt in prompts]

    def advance(chosen: Tensor) -> Tensor:
        return torch.cat([reader.advance(token) for reader, token in zip(readers, torch.split(chosen, 1))])

    return Reader(torch.cat([reader.logits for reader in readers]), advance)


def _read_again(model: Any, prompts: list[list[int]]) -> Reader:
    """The same without a cache, for rotary frequencies that change with the length: each step reads all of a
    row.
    """
    device = next(model.parameters()).device
    rows = [list(prompt) for prompt in prompts]

    def read() -> Tensor:
        lengths = tuple(map(len, rows))
        tokens = torch.tensor([token for row in rows for token in row], device=device)[None]
        return foreign.scored_logits(model, tokens, None, lengths, find_lasts(lengths, device))

    def advance(chosen: Tensor) -> Tensor:
        for row, token in zip(rows, chosen.tolist()):
            row.append(token)
        return read()

    return Reader(read(), advance)


def _read_side_by_side(model: Any, prompts: list[list[int]]) -> Reader:
    """The same with a cache: prompts of different lengths are padded on the left, and the mask grows."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    given = {"attention_mask": mask}
    if (
        not mask.all()
    ):  # else the model counts positions as it was trained to: some begin behind that of the padding
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    past: Any = None

    def advance(chosen: Tensor) -> Tensor:
        given["attention_mask"] = functional.pad(given["attention_mask"], (0, 1), value=1)
        if "position_ids" in given:
            given["position_ids"] = given["position_ids"][:, -1:] + 1
        return read(chosen[:, None].to(device))

    def read(tokens: Tensor) -> Tensor:
        nonlocal past
        output = model(input_ids=tokens, past_key_values=past, use_cache=True, logits_to_keep=1, **given)
        past = getattr(output, "past_key_values", None)
        if past is None:
            raise InputError(
                f"a {model.config.model_type} model keeps no keys and values to go on from, which writing "
                "text here needs; use another model, or leave out evaluate.prompts and evaluate.answers"
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    return Reader(read(tokens), advance)


FOREIGN = Family(
    name="transformers",
    config=ForeignConfig,
    modules=(),
    objectives=("causal", "classification"),
    model_types=(),
    takes="causal models and classifiers of transformers",
    read=_read,
    load=_load,
    make=_make,
    measure=_measure,
    describe=_describe,
    classifier=lambda files, config: {**files.values, **config.classifier},
    context=_context,
    blocks=_blocks,
    label_logits=_label_logits,
    reader=_reader,
)
