"""Pretrained models on this machine: found, looked at without reading their weights, and loaded; never
downloaded.

Qwen2, Qwen3, Llama, Mistral and their kin become a `Decoder`, and as classifiers BERT and RoBERTa an
`Encoder` and T5 a `T5Classifier`; any other causal model or classifier runs through transformers.
"""

import difflib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.errors import InputError
from etude.models import foreign
from etude.models.catalogue import STORIES
from etude.models.config_sizes import check_sizes
from etude.models.cost import count_parameters
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.encoder import Encoder
from etude.models.encoder_config import CODE_ENCODER, EncoderConfig, encoder_name
from etude.models.generation_config import read_generation_config, read_stop_ids
from etude.models.hf_config import label_names
from etude.models.lora import CONFIG_FILE
from etude.models.parts import count_parts, find_targets, label_tensors
from etude.models.t5 import T5, T5Classifier
from etude.models.t5_config import T5Config
from etude.models.weights import (
    REMADE,
    check_twins,
    digest,
    is_same,
    read_config,
    read_weight,
    read_weights,
    set_weight,
    tensor_shapes,
)
from etude.recipe.load import at_home

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_MASKED_HEAD = re.compile(r"(lm_head|cls\.predictions)\.decoder\.weight")
_T5_EMBEDDING = re.compile(r"(encoder|decoder)\.embed_tokens\.weight")
# transformers 4 would take the embedding for the head, and 5 the file's.
_OTHER_HEAD = (
    "{}: config.json says that lm_head.weight is the embedding (tie_word_embeddings), but it is another "
    "matrix; mend the file, or copy the model again"
)
_EMBEDDINGS = ("model.embed_tokens.weight", "shared.weight")

Config = DecoderConfig | EncoderConfig | T5Config


@dataclass(frozen=True)
class Pretrained:
    """A model in a folder. `config` is None where the family runs through transformers, and `reason` says
    why.

    parameters  exact, by part, shared ones once
    digest      SHA-256 over config.json and the weights: names the model in records
    labels      that it scores as a classifier; 0 if it is none
    generation  what generation_config.json says of a model that writes text
    stop_ids    at which such a model stops
    label_names  those of its files as they are, in the order of its outputs; none where they hold no
                 classifier
    kept_labels  outputs of its files' head, the first ones, that are loaded; the rest of `labels` is drawn
                 anew
    """

    path: Path
    config: Config | None
    reason: str | None
    hf_config: dict[str, Any]
    digest: str
    parameters: dict[str, int]
    labels: int = 0
    generation: dict[str, Any] = field(default_factory=dict)
    stop_ids: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()
    kept_labels: int = 0


def find_model(given: str, revision: str | None = None) -> Path:
    """The folder of a model: the one given, or that of a hub id in the hub's cache on this machine.

    Raises: InputError that names what is missing and where it was looked for.
    """
    try:
        return _find(given, revision)
    except (
        OSError,
        ValueError,
    ) as error:  # a name that is too long, holds a NUL, or a folder that may not be read
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"model.from: {given[:120]!r} cannot be looked up ({reason}); give another folder"
        ) from None


def _find(given: str, revision: str | None) -> Path:
    if given.startswith((".", "/", "~")) or Path(given).is_dir():
        folder = at_home(given)
        if not (folder / "config.json").is_file():
            what = "has no config.json" if folder.is_dir() else "does not exist"
            raise InputError(
                f"model.from: {folder} {what}; give a folder with config.json and safetensors, or a hub id"
            )
        return folder
    if not _HUB_ID.fullmatch(given) or ".." in given:
        raise InputError(
            f"model.from is {given[:120]!r}, neither a folder nor a hub id such as Qwen/Qwen2.5-Coder-1.5B"
        )
    places = [root / ("models--" + given.replace("/", "--")) for root in _cache_roots()]
    for place in places:
        if snapshot := _snapshot(place, revision or "main"):
            return snapshot
    for place in filter(Path.is_dir, places):
        commits = sorted(path.parent.name for path in place.glob("snapshots/*/config.json"))
        there = f"there is {', '.join(commits)}" if commits else "no snapshot there has a config.json"
        raise InputError(
            f"model.from: revision {revision or 'main'} of {given} is not in {place}; {there}; "
            "set model.revision, or put it there with the hub's own tool"
        )
    looked = ", ".join(map(str, places))
    raise InputError(f"model.from: {given} is not on this machine (looked for {looked}){_advice(given)}")


def inspect_model(path: Path, objective: str | None = None) -> Pretrained:
    """Look at a model without reading its weights; nothing that it brings along is run.

    objective: what the model must be fit for; by default what its config.json says. Of an encoder or a
    classifier the parameters are counted once its labels are known.

    Raises: InputError for a model with code of its own, a pickle, a missing or damaged file.
    """
    values = read_config(path)
    if values.get("auto_map"):
        raise InputError(
            f"{path / 'config.json'} has auto_map: the model wants its own code run, which etude never does"
        )
    if (path / CONFIG_FILE).exists():
        raise InputError(
            f"{path} holds a model and, by its {CONFIG_FILE}, an adapter, of which tools load one or both; "
            "put each into a folder of its own"
        )
    if values.get("quantization_config"):
        raise InputError(f"{path} holds quantised weights; give the model they were made of")
    shapes = tensor_shapes(path)
    check_sizes(path, values, len(shapes))
    if objective is None:
        objective = "seq2seq" if values.get("model_type") == "t5" else "causal"
        objective = "classification" if _is_classifier(values) else objective
    if objective == "classification":
        return _inspect_classifier(path, values, shapes)
    if objective == "masked":
        try:
            encoder = EncoderConfig.from_hf(values)
        except InputError as error:
            wrong = str(error).removeprefix("config.json: ")
            raise InputError(
                f"{path}: {wrong}; {objective} takes BERT, RoBERTa, CodeBERT and their kin"
            ) from None
        _check_twins(path, encoder, shapes, is_masked=True)
        return Pretrained(path, encoder, None, values, digest(path), {})
    if objective == "seq2seq":
        try:
            t5 = T5Config.from_hf(values, has_head=_has_head(path, values, shapes))
        except InputError as error:
            wrong = str(error).removeprefix("config.json: ")
            raise InputError(f"{path}: {wrong}; seq2seq takes T5, CodeT5, CodeT5+ and their kin") from None
        _check_tensors(path, t5, shapes)
        if not t5.tied and t5.scaled and values.get("tie_word_embeddings") is not False:
            raise InputError(_OTHER_HEAD.format(path))
        _check_twins(path, t5, shapes)
        return _with_generation(Pretrained(path, t5, None, values, digest(path), count_t5(t5)))
    reason = None
    config: DecoderConfig | None = None
    try:
        config = DecoderConfig.from_hf(values)
    except InputError as error:
        reason = f"runs through transformers, as {str(error).removeprefix('config.json: ')}"
    if config is not None:
        parameters = count_parameters(config)
        _check_tensors(path, config, shapes)
    else:
        parameters = foreign.count_parameters(path, shapes)
    return _with_generation(Pretrained(path, config, reason, values, digest(path), parameters))


def load_pretrained(pretrained: Pretrained, *, dtype: torch.dtype, dropout: float) -> nn.Module:
    """The model with its weights in `dtype`, but what must be fp32 (norms, and of T5 in fp16 the products
    with wo).

    Raises: InputError if a file is damaged.
    """
    if pretrained.config is None:
        return foreign.load_causal(pretrained.path, dtype, dropout)
    assert not isinstance(pretrained.config, EncoderConfig)
    model = empty_model(replace(pretrained.config, dropout=dropout))
    wanted = dict(model.named_parameters())
    for name, tensor in read_weights(pretrained.path):
        if name in wanted:  # else a tied head, or a buffer; inspect_model has refused anything else
            set_weight(model, name, tensor, dtype)
    return model


def count_t5(config: T5Config) -> dict[str, int]:
    """Exact parameters by part, from the meta device."""
    counted = [(name, parameter.numel()) for name, parameter in empty_model(config).named_parameters()]
    parts = {"embedding": "shared", "encoder": "encoder", "decoder": "decoder", "head": "lm_head"}
    sizes = {
        part: sum(size for name, size in counted if name.startswith(start)) for part, start in parts.items()
    }
    return sizes | {"total": sum(sizes.values())}


def count_lora(pretrained: Pretrained, rank: int, targets: str | list[str], *, dora: bool = False) -> int:
    """Parameters of an adapter: rank x (in + out) for each target, and out more with DoRA.

    Raises: as find_targets.
    """
    model = meta_model(pretrained)
    total = 0
    for name in find_targets(model, targets):
        module = model.get_submodule(name)
        outputs, inputs = module.weight.shape  # type: ignore[misc]
        if type(module).__name__ == "Conv1D":
            outputs, inputs = inputs, outputs
        total += rank * (int(inputs) + int(outputs)) + dora * int(outputs)
    return total


def meta_model(pretrained: Pretrained) -> nn.Module:
    """The modules and names of a model, without memory."""
    if pretrained.config is None:
        return foreign.empty_model(pretrained.path, pretrained.labels)
    return empty_model(pretrained.config, pretrained.labels)


def empty_model(config: Config, labels: int = 0) -> nn.Module:
    """Modules and names without memory, of a classifier if there are labels."""
    with torch.device("meta"):
        if isinstance(config, EncoderConfig):
            return Encoder(replace(config, labels=labels), "classification" if labels else "masked")
        if isinstance(config, T5Config):
            return T5Classifier(config, labels) if labels else T5(config)
        return Decoder(config, labels)


# Where models lie


def _cache_roots() -> list[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    named = [os.environ.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    return [Path(root) for root in dict.fromkeys([*(root for root in named if root), str(home / "hub")])]


def _snapshot(folder: Path, revision: str) -> Path | None:
    """The files of a revision (branch, tag or commit), where the cache has them."""
    if not re.fullmatch(r"[\w./-]+", revision) or ".." in revision:
        raise InputError(f"model.revision is {revision[:120]!r}; expected a commit, tag or branch")
    commit = revision
    with_name = folder / "refs" / revision
    if with_name.is_file():
        commit = durable.read_text(with_name, most_bytes=1 << 10).strip()
        if not re.fullmatch(r"\w+", commit):
            raise InputError(f"{with_name} names no commit; fetch the model again with the hub's own tool")
    snapshot = folder / "snapshots" / commit
    return snapshot if (snapshot / "config.json").is_file() else None


def _advice(given: str) -> str:
    there = [
        path.name.removeprefix("models--").replace("--", "/")
        for root in _cache_roots()
        if root.is_dir()
        for path in root.glob("models--*")
    ]
    near = difflib.get_close_matches(given, [*there, *STORIES], n=1, cutoff=0.6)
    if near and near[0] != given:
        return f"; did you mean {near[0]}?"
    return "; etude never downloads: put the model there with the hub's own tool, or give its folder"


# What they hold


def _check_tensors(path: Path, config: DecoderConfig | T5Config, shapes: dict[str, tuple[int, ...]]) -> None:
    lasts = [f"model.layers.{config.n_layer - 1}.input_layernorm.weight"]
    if isinstance(config, T5Config):
        blocks = (("encoder", config.n_layer), ("decoder", config.n_decoder_layer))
        lasts = [f"{side}.block.{count - 1}.layer.0.layer_norm.weight" for side, count in blocks]
    for last in lasts:  # said before a million blocks are made for a config.json that claims them
        if last not in shapes:
            raise InputError(f"{path} lacks {last}, unlike its config.json; copy the model again")
    wanted = {name: tuple(parameter.shape) for name, parameter in empty_model(config).named_parameters()}
    extra = [
        name
        for name in shapes
        if name not in wanted and not REMADE.search(name) and not (config.tied and name == "lm_head.weight")
    ]
    for name in [*wanted, *extra]:
        if name in extra or name not in shapes:
            what = "has" if name in extra else "lacks"
            raise InputError(f"{path} {what} {name}, unlike its config.json; copy the model again")
        if shapes[name] != wanted[name]:
            raise InputError(
                f"{path}: {name} is {list(shapes[name])}, but config.json says {list(wanted[name])}"
            )

    if (
        isinstance(config, DecoderConfig)
        and config.tied
        and "lm_head.weight" in shapes
        and not _is_head_tied(path)
    ):
        raise InputError(_OTHER_HEAD.format(path))


def _with_generation(pretrained: Pretrained) -> Pretrained:
    path = pretrained.path
    return replace(pretrained, generation=read_generation_config(path), stop_ids=read_stop_ids(path))


def _check_twins(
    path: Path, config: Config, shapes: dict[str, tuple[int, ...]], *, is_masked: bool = False
) -> None:
    """Raises: InputError if tensors that are one in the model, as transformers ties them, differ in its
    files.

    is_masked: whether the head of a masked model is read, too.
    """

    def place(name: str) -> str:
        if isinstance(config, EncoderConfig):
            if is_masked and _MASKED_HEAD.fullmatch(name):
                return f"{config.family}.embeddings.word_embeddings.weight"
            return encoder_name(name, config.family)
        if isinstance(config, T5Config):
            name = name.removeprefix("transformer.")
            return "shared.weight" if _T5_EMBEDDING.fullmatch(name) else name
        return name.removeprefix("model.")

    check_twins(path, shapes, place)


def _has_head(path: Path, values: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a T5 has a head of its own: files made by torch name a tied one, too.

    Raises: InputError if config.json says that it has one, and the files do not.
    """
    if "lm_head.weight" not in shapes:
        if values.get("tie_word_embeddings") is False:
            raise InputError(
                "config.json: tie_word_embeddings is false, but the files have no lm_head.weight; copy it "
                "again, or set it to true and scale_decoder_outputs to false if the head is the embedding"
            )
        return False
    return values.get("tie_word_embeddings") is False or not _is_head_tied(path)


def _is_head_tied(path: Path) -> bool:
    head, embedding = (read_weight(path, names) for names in (("lm_head.weight",), _EMBEDDINGS))
    return is_same(head, embedding)


def _is_classifier(values: dict[str, Any]) -> bool:
    return "ForSequenceClassification" in str(values.get("architectures"))


def _label_names(path: Path, values: dict[str, Any]) -> tuple[str, ...]:
    """Those of the classifier that a folder holds; of a regression, or another model, none.

    Raises: InputError.
    """
    is_named = not values.get("architectures") and bool(values.get("id2label"))
    if values.get("problem_type") == "regression" or not (_is_classifier(values) or is_named):
        return ()
    try:
        return label_names(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _inspect_classifier(path: Path, values: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Pretrained:
    """`hf_config` becomes that of a classifier: with the class that transformers loads, and its id to pad
    with.
    """
    family = values.get("model_type")
    if family == CODE_ENCODER:
        EncoderConfig.from_hf(values)  # says what to do instead
    config: Config | None = None
    reason = None
    try:
        if family in ("roberta", "bert"):
            config = EncoderConfig.from_hf(values)
        else:
            config = T5Config.from_hf(values) if family == "t5" else DecoderConfig.from_hf(values)
    except InputError as error:
        reason = f"runs through transformers, as {str(error).removeprefix('config.json: ')}"
    if config is not None:
        _check_twins(path, config, shapes)
    names = _label_names(path, values)
    labels = len(names)
    said = {**values, "architectures": [f"{_CLASSIFIERS.get(str(family))}ForSequenceClassification"]}
    padding = values.get("pad_token_id")
    if config is None:
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
        )

        theirs = foreign.read_config(path, labels or 2)
        said["architectures"] = [CLASSES[theirs.model_type]]
        padding = getattr(theirs.get_text_config(), "pad_token_id", None)
    if padding is not None:
        said["pad_token_id"] = padding
    found = Pretrained(
        path, config, reason, said, digest(path), {}, labels, label_names=names, kept_labels=labels
    )
    if not labels:
        return found
    model = meta_model(found)
    for name in label_tensors(model):
        wanted = tuple(model.get_parameter(name).shape)
        if shapes.get(name, wanted) != wanted:
            raise InputError(
                f"{path}: {name} is {list(shapes[name])}, but config.json says {list(wanted)}; copy the "
                "model again"
            )
    return replace(found, parameters=count_parts(model))


_CLASSIFIERS = {
    "roberta": "Roberta", "bert": "Bert", "t5": "T5", "qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama",
    "mistral": "Mistral",
}  # fmt: skip
