"""All other models, which run through transformers: inspected, loaded, and the row of their family."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from etude.errors import InputError
from etude.memory import limited_memory
from etude.models.cost import Cost, cost_of
from etude.models.families import shared
from etude.models.families.family import Family, Files, Into, Loaded, Pretrained
from etude.models.foreign import label_logits, read_prompts, states
from etude.models.parts import count_parts, count_products, head_modules, label_tensors
from etude.models.weights import REMADE, check_twins, read_weight, tensor_shapes

# Families that count positions on from the row behind that of the padding.
_AFTER_PADDING = (
    "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "xmod", "ibert",
    "mpnet", "longformer", "esm",
)  # fmt: skip
_NO_LIMIT = 2**30
# Parts that files have beside the body of a model, to no use of some.
_BESIDE = re.compile(r"(^|\.)(pooler|position_ids|token_type_ids)(\.|$)")
# Memory for a configuration and for modules without weights, several times that of the largest known model.
_CONFIG_BYTES = 1 << 30


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


def read_config(path: Path, labels: int = 0) -> Any:
    """The configuration in config.json; with labels that of a classifier. Raises: InputError without one."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as families
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # it quotes the file, whole, also before it raises
    with _transformers(path, "read config.json", "use another model", most_bytes=_CONFIG_BYTES):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    # A file may name an implementation that transformers would fetch and run; the choice is not the file's.
    config._attn_implementation = config._experts_implementation = None
    if labels:
        if config.model_type not in families.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            wrong = f"a {config.model_type} model, which has no form that scores labels"
            taken = "BERT, RoBERTa, ModernBERT, T5, Qwen2, Llama and their kin"
            raise InputError(f"{path} is {wrong}; classification takes {taken}")
        config.num_labels = labels
        return config
    # transformers offers a causal head to encoders too, where every position would see its own target.
    is_encoder = config.is_encoder_decoder or reads_both_ways(config.model_type)
    is_causal = config.model_type in families.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not is_causal or (is_encoder and not getattr(config, "is_decoder", False)):
        wrong = f"a {config.model_type} model, which does not predict the next token"
        raise InputError(f"{path} is {wrong}; use a causal one")
    return config


def reads_both_ways(model_type: str) -> bool:
    """True for the encoders of transformers, by model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    return model_type in {*ENCODERS, "bert-generation", "cpmant", "xlnet"}


def load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int, into: Into) -> Loaded:
    """A causal model or a classifier, and the names of its weights that no file had, drawn by the seed.

    into: not asked, as transformers puts the weights in place itself.
    Raises: InputError if a file is damaged, or lacks weights of the body.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    path, labels = pretrained.path, pretrained.labels
    config = read_config(path, labels)
    kind: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    if labels:
        config.get_text_config().pad_token_id = pretrained.hf_config.get("pad_token_id") or 0
        _check_twins(_make(path, labels), path, tensor_shapes(path))
    for name in [name for name in vars(config) if re.fullmatch(r"\w*(dropout|pdrop)(_prob)?", name)]:
        if isinstance(getattr(config, name), float | int):
            setattr(config, name, dropout)
    with torch.random.fork_rng(devices=[]), _transformers(path, "load the model", "copy it again"):
        torch.manual_seed(seed)
        model, report = kind.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=labels > 0,
        )  # fmt: skip
    _refuse_unused(model, report["unexpected_keys"], path)
    heads = tuple(f"{name}." for name in head_modules(model))
    for name, given, expected in report["mismatched_keys"]:
        if not name.startswith(heads):
            raise shared.other_shape(path, name, given, expected)
    missing = sorted(name for name in report["missing_keys"] if not REMADE.search(name))
    if lost := [name for name in missing if not name.startswith(heads)]:
        raise InputError(f"{path} lacks {lost[0]}, unlike its config.json; copy the model again")
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    new = {*missing, *mismatched}
    if pretrained.label_names and pretrained.kept_labels != labels:
        new.update(_draw_labels(model, pretrained, seed))  # the loaded outputs are of other labels
    elif names := sorted(mismatched.intersection(label_tensors(model))):
        wrong = f"{names[0]} is of other labels than the {labels:,} in config.json"
        raise InputError(f"{path}: {wrong}; copy it again")
    return model, sorted(new)


def _read(files: Files) -> ForeignConfig:
    parameters, classifier, values = {}, {}, files.values
    if files.has_labels:
        classifier = _as_classifier(files.path)
    else:
        parameters = _count_parameters(files)
    longest = int(values.get("max_position_embeddings") or values.get("n_positions") or _NO_LIMIT)
    if values.get("model_type") in _AFTER_PADDING:
        longest -= int(values.get("pad_token_id") or 1) + 1
    return ForeignConfig(files.path, longest, parameters, classifier)


def _make(path: Path, labels: int) -> nn.Module:
    """Modules and names without memory, of a classifier if there are labels. Raises: as `read_config`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = read_config(path, labels)
    kind: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    built = _transformers(path, "build what config.json says", "mend the file", most_bytes=_CONFIG_BYTES)
    with built, torch.device("meta"):
        model: nn.Module = kind.from_config(config, trust_remote_code=False)
        model.tie_weights()  # type: ignore[operator]
    return model


def _count_parameters(files: Files) -> dict[str, int]:
    """Exact parameters by part. Raises: InputError if files have other shapes than config.json says."""
    path, shapes = files.path, files.shapes
    model: Any = _make(path, 0)
    _check_twins(model, path, shapes)
    for name, parameter in model.named_parameters():
        # Some files leave out the name of the part that all but the head stand in.
        stored = shapes.get(name, shapes.get(name.removeprefix(f"{model.base_model_prefix}.")))
        if stored not in (None, tuple(parameter.shape)):
            raise shared.other_shape(path, name, stored, parameter.shape)
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    return {"embedding": embedding, "rest": total - embedding, "total": total}


def _measure(config: ForeignConfig, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    model: Any = _make(config.path, labels)
    text = model.config.get_text_config()
    seen = seq_len if reads_both_ways(model.config.model_type) else seq_len / 2
    attended = text.num_hidden_layers * text.hidden_size * seen
    if labels:
        parameters = count_parts(model)
        return parameters, shared.classifier_cost(model, parameters, adapter, attended)
    head = model.get_output_embeddings().weight.numel()
    return dict(config.parameters), cost_of(count_products(model), head, attended=attended, adapter=adapter)


def _as_classifier(path: Path) -> dict[str, Any]:
    """The class of the classifier, and its id for padding."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    theirs = read_config(path, 2)
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


@torch.no_grad()
def _draw_labels(model: nn.Module, pretrained: Pretrained, seed: int) -> list[str]:
    """Draw the outputs of a head anew, but for those kept of the files; returns the names of its tensors."""
    generator = torch.Generator().manual_seed(seed)
    names = label_tensors(model)
    for name in names:
        parameter = model.get_parameter(name)
        drawn = torch.zeros(parameter.shape)
        if not name.endswith("bias"):
            drawn.normal_(std=0.02, generator=generator)
        given = read_weight(pretrained.path, [name])
        if given is not None:
            drawn = shared.kept_outputs(pretrained, name, given, drawn)
        parameter.copy_(drawn)
    return names


def _check_twins(model: Any, path: Path, names: Iterable[str]) -> None:
    """Raises: InputError if tied tensors differ in files; transformers leaves them apart then."""
    body = f"{model.base_model_prefix}."
    tied = {
        target.removeprefix(body): source.removeprefix(body)
        for target, source in getattr(model, "all_tied_weights_keys", {}).items()
    }

    def place(name: str) -> str:
        name = name.removeprefix(body)
        return str(tied.get(name, name))

    check_twins(path, names, place)


def _refuse_unused(model: Any, names: Iterable[str], path: Path) -> None:
    """Raises: InputError if a file has weights for the body that the model has no place for.

    Files may have other heads; those of the bare body leave out its name.
    """
    body = model.base_model_prefix
    parts = {name for name, _ in model.get_submodule(body).named_children()}
    for name in sorted(names):
        is_body = name.startswith(f"{body}.") or name.partition(".")[0] in parts
        if is_body and not (REMADE.search(name) or _BESIDE.search(name)):
            raise InputError(f"{path} has {name}, unlike its config.json; copy the model again")


@contextlib.contextmanager
def _transformers(path: Path, task: str, advice: str, *, most_bytes: int = 0) -> Iterator[None]:
    """Turn an error of transformers into an InputError; most_bytes: of memory, 0 for any."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        with limited_memory(most_bytes) if most_bytes else contextlib.nullcontext():
            yield
    except Exception as error:  # transformers raises whatever its many models raise
        reason = " ".join(str(error).split())[:110]
        if most_bytes and isinstance(error, MemoryError):
            reason = f"it takes more than {most_bytes >> 20:,} MiB, far more than modules without weights do"
        raise InputError(f"{path}: transformers cannot {task} ({reason}); {advice}") from None


FOREIGN = Family(
    name="transformers",
    config=ForeignConfig,
    modules=(),
    objectives=("causal", "classification"),
    model_types=(),
    takes="causal models and classifiers of transformers",
    read=_read,
    load=load,
    make=lambda config, labels: _make(config.path, labels),
    measure=_measure,
    describe=lambda config, pretrained, facts: shared.describe_pretrained(
        cast(Pretrained, pretrained), facts
    ),
    classifier=lambda files, config: {**files.values, **config.classifier},
    context=_context,
    blocks=_blocks,
    label_logits=lambda model, batch: label_logits(model, batch.tokens, batch.lengths, batch.types),
    states=lambda model, batch: states(model, batch.tokens, batch.lengths),
    reader=read_prompts,
)
