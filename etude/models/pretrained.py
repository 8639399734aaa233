"""Pretrained models: inspected without reading their weights, and loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude.errors import InputError
from etude.models import compressed
from etude.models.config_checks import check_sizes
from etude.models.families.family import Config, Family, Files, Into, Loaded, Pretrained
from etude.models.families.foreign import FOREIGN, reads_both_ways
from etude.models.families.table import claim, default_objective, family_of
from etude.models.generation_config import read_generation_config, read_stop_ids
from etude.models.hf_config import Unsupported, is_classifier, label_names
from etude.models.lora import CONFIG_FILE
from etude.models.parts import count_parts, find_targets, label_tensors, linear_shape
from etude.models.weights import digest, has_weights, in_place, read_config, tensor_shapes
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.model import RopeScaling


def inspect_model(
    path: Path, objective: str | None = None, *, needs_weights: bool = True, for_use: bool = False
) -> Pretrained:
    """Inspect a model without reading its weights; no code that it brings along is run.

    objective: the kind of training that it is for; by default that of its config.json. The parameters of an
    encoder or a classifier are counted once its labels are known. needs_weights: false believes config.json,
    whether there are weights or not, and gives no digest. for_use: true takes weights that etude quantised,
    which are not to be trained.

    Raises: InputError for a model with code of its own, a pickle, a missing or damaged file.
    """
    values = read_config(path)
    if values.get("auto_map"):
        wrong = "the model wants its own code run, which etude never does"
        raise InputError(f"{path / 'config.json'} has auto_map: {wrong}")
    if (path / CONFIG_FILE).exists():
        wrong = f"holds a model and, by its {CONFIG_FILE}, an adapter, of which tools load one or both"
        raise InputError(f"{path} {wrong}; put each into a folder of its own")
    if (quantized := values.pop(compressed.CONFIG, None)) and for_use:
        compressed.read_scheme(path, quantized)
    elif quantized:
        raise InputError(f"{path} holds quantised weights; give the model they were made of")
    shapes = tensor_shapes(path) if needs_weights or has_weights(path) else {}
    check_sizes(path, values, len(shapes) or None)
    chosen = objective or ("classification" if is_classifier(values) else default_objective(values))
    files = Files(path=path, values=values, shapes=shapes, objective=chosen)
    names = _label_names(files) if files.has_labels else ()
    family, config, reason = _choose_family(files)
    if quantized and family is FOREIGN:
        raise InputError(
            f"{path} holds quantised weights of a model that {reason}; load it with transformers"
        )
    if needs_weights:
        family.check(files, config)
    known = digest(path) if needs_weights else ""
    found = Pretrained(path, config, reason, values, known, {}, label_names=names)
    if files.has_labels:
        return _as_classifier(replace(found, hf_config=family.classifier(files, config)), files)
    if not TRAINING_KINDS[files.objective].writes_text:
        return found
    parameters, _ = family.measure(config, 0, 1, 0)
    generation, stop_ids = read_generation_config(path), read_stop_ids(path)
    return replace(found, parameters=parameters, generation=generation, stop_ids=stop_ids)


def extend_context(pretrained: Pretrained, scaling: RopeScaling) -> Pretrained:
    """The model with rotary positions for a longer context, also in its config.json.

    Raises: InputError for a model of another family, or where they do not fit it.
    """
    family = family_of(pretrained.config)
    if family.extend is None:
        what = pretrained.reason or f"is {pretrained.hf_config.get('model_type')!r}"
        wrong = f"model.rope_scaling is for Qwen3, Qwen2, Mistral and Llama, but {pretrained.path} {what}"
        raise InputError(f"{wrong}; leave it out")
    config, values = family.extend(pretrained.hf_config, scaling)
    return replace(pretrained, config=config, hf_config=values)


def find_objective(path: Path) -> str:
    """The kind of training that people mostly want of a model: classification of an encoder.

    Raises: InputError without a config.json that can be read.
    """
    values = read_config(path)
    default = default_objective(values)
    may_be_encoder = TRAINING_KINDS[default].chats and not values.get("is_decoder")
    is_encoder = may_be_encoder and reads_both_ways(str(values.get("model_type")))
    return "classification" if is_encoder or is_classifier(values) else default


def load_pretrained(
    pretrained: Pretrained, *, dtype: torch.dtype, dropout: float, seed: int = 0, into: Into = in_place
) -> Loaded:
    """The model with its weights in `dtype`, but norms in fp32; and the names of weights that no file had.

    These are drawn by the seed. into: where the weights of a family of etude go.
    Raises: InputError if a file is damaged.
    """
    return family_of(pretrained.config).load(pretrained, dtype, dropout, seed, into)


def meta_model(pretrained: Pretrained) -> nn.Module:
    """The modules and names of a model, without memory."""
    return family_of(pretrained.config).empty(pretrained.config, pretrained.labels)


def count_lora(pretrained: Pretrained, rank: int, targets: str | list[str], *, dora: bool = False) -> int:
    """Parameters of an adapter: rank x (in + out) a target, out more with DoRA. Raises: InputError."""
    model = meta_model(pretrained)
    shapes = [linear_shape(model.get_submodule(name)) for name in find_targets(model, targets)]
    return sum(rank * (inputs + outputs) + dora * outputs for outputs, inputs in shapes)


def _choose_family(files: Files) -> tuple[Family[Any], Config, str | None]:
    """The family of files, their configuration, and why it is transformers, if an own one was tried.

    Raises: InputError for a wrong value, and where transformers serves no such training.
    """
    family = claim(files)
    try:
        return family, family.read(files), None
    except InputError as error:
        wrong = str(error).removeprefix("config.json: ")
        if files.objective not in FOREIGN.objectives:
            raise InputError(f"{files.path}: {wrong}; {files.objective} takes {family.takes}") from None
        if not isinstance(error, Unsupported):
            raise InputError(f"{files.path}/config.json: {wrong}") from None
        reason = f"runs through transformers, as {wrong}"
    return FOREIGN, FOREIGN.read(files), reason


def _label_names(files: Files) -> tuple[str, ...]:
    """The label names of the classifier in a folder; none for a regression. Raises: InputError."""
    values = files.values
    is_named = not values.get("architectures") and bool(values.get("id2label"))
    if values.get("problem_type") == "regression" or not (is_classifier(values) or is_named):
        return ()
    try:
        return label_names(values)
    except InputError as error:
        raise InputError(f"{files.path}: {error}") from None


def _as_classifier(pretrained: Pretrained, files: Files) -> Pretrained:
    """The model with the labels of its files, and its parameters. Raises: InputError for another head."""
    labels = len(pretrained.label_names)
    found = replace(pretrained, labels=labels, kept_labels=labels)
    if not labels:
        return found
    model = meta_model(found)
    for name in label_tensors(model):
        wanted = tuple(model.get_parameter(name).shape)
        if files.shapes.get(name, wanted) != wanted:
            wrong = f"{name} is {list(files.shapes[name])}, but config.json says {list(wanted)}"
            raise InputError(f"{files.path}: {wrong}; copy the model again")
    return replace(found, parameters=count_parts(model))
