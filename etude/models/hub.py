"""Pretrained models on this machine: found, looked at without reading their weights, and loaded; never downloaded.

Qwen2, Qwen3, Llama, Mistral and their kin become a `Decoder`, and as classifiers BERT and RoBERTa an `Encoder` and T5 a
`T5Classifier`; any other causal model or classifier runs through transformers.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.errors import InputError
from etude.models.catalogue import STORIES
from etude.models.config import DecoderConfig
from etude.models.cost import count_parameters
from etude.models.decoder import Decoder
from etude.models.encoder import CODE_ENCODER, Encoder, EncoderConfig
from etude.models.t5 import T5, T5Classifier, T5Config, keeps_fp32

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Buffers that older files carry and every model makes anew, and what T5's files have twice or to no use.
REMADE = re.compile(
    r"(rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias|attention\.bias|attention\.masked_bias"
    r"|^(encoder|decoder)\.embed_tokens\.weight|EncDecAttention\.relative_attention_bias\.weight)$"
)

Config = DecoderConfig | EncoderConfig | T5Config


@dataclass(frozen=True)
class Pretrained:
    """A model in a folder. `config` is None where the family runs through transformers, and `reason` says why.

    parameters  exact, by part, shared ones once
    digest      SHA-256 over config.json and the weights: names the model in records
    labels      that it scores as a classifier; 0 if it is none
    """

    path: Path
    config: Config | None
    reason: str | None
    hf_config: dict[str, Any]
    digest: str
    parameters: dict[str, int]
    labels: int = 0


def find_model(given: str, revision: str | None = None) -> Path:
    """The folder of a model: the one given, or that of a hub id in the hub's cache on this machine.

    Raises: InputError that names what is missing and where it was looked for.
    """
    if given.startswith((".", "/", "~")) or Path(given).is_dir():
        folder = Path(given).expanduser()
        if not (folder / "config.json").is_file():
            what = "has no config.json" if folder.is_dir() else "does not exist"
            raise InputError(
                f"model.from: {folder} {what}; give a folder with config.json and safetensors, or a hub id"
            )
        return folder
    if not _HUB_ID.fullmatch(given) or ".." in given:
        raise InputError(f"model.from is {given!r}, neither a folder nor a hub id such as Qwen/Qwen2.5-Coder-1.5B")
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

    objective: what the model must be fit for; by default what its config.json says. Of an encoder or a classifier
    the parameters are counted once its labels are known.

    Raises: InputError for a model with code of its own, a pickle, a missing or damaged file.
    """
    values = _read_config(path)
    if values.get("auto_map"):
        raise InputError(
            f"{path / 'config.json'} has auto_map: the model wants its own code run, which etude never does"
        )
    if values.get("quantization_config"):
        raise InputError(f"{path} holds quantised weights; give the model they were made of")
    shapes = dict(_tensor_shapes(path))
    if objective is None:
        objective = "seq2seq" if values.get("model_type") == "t5" else "causal"
        objective = "classification" if _is_classifier(values) else objective
    if objective == "classification":
        return _inspect_classifier(path, values)
    if objective == "masked":
        try:
            return Pretrained(path, EncoderConfig.from_hf(values), None, values, _digest(path), {})
        except InputError as error:
            wrong = str(error).removeprefix("config.json: ")
            raise InputError(f"{path}: {wrong}; {objective} takes BERT, RoBERTa, CodeBERT and their kin") from None
    if objective == "seq2seq":
        try:
            t5 = T5Config.from_hf(values, has_head="lm_head.weight" in shapes)
        except InputError as error:
            wrong = str(error).removeprefix("config.json: ")
            raise InputError(f"{path}: {wrong}; seq2seq takes T5, CodeT5, CodeT5+ and their kin") from None
        _check_tensors(path, t5, shapes)
        return Pretrained(path, t5, None, values, _digest(path), count_t5(t5))
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
        parameters = _count_foreign(path, shapes)
    return Pretrained(path, config, reason, values, _digest(path), parameters)


def load_pretrained(pretrained: Pretrained, *, dtype: torch.dtype, dropout: float) -> nn.Module:
    """The model with its weights in `dtype`, but what must be fp32 (norms, and of T5 in fp16 the products with wo).

    Raises: InputError if a file is damaged.
    """
    if pretrained.config is None:
        return _load_foreign(pretrained.path, dtype, dropout)
    assert not isinstance(pretrained.config, EncoderConfig)
    model = empty_model(replace(pretrained.config, dropout=dropout))
    wanted = dict(model.named_parameters())
    for name, tensor in read_weights(pretrained.path):
        if name in wanted:  # else a tied head, or a buffer; inspect_model has refused anything else
            set_weight(model, name, tensor, dtype)
    return model


def load_foreign_classifier(
    pretrained: Pretrained, *, dtype: torch.dtype, dropout: float, seed: int
) -> tuple[nn.Module, list[str]]:
    """A classifier of transformers, and the names of its weights that no file had, drawn as transformers draws them.

    Raises: InputError if a file is damaged, or lacks weights of the body.
    """
    from transformers import AutoModelForSequenceClassification

    config = _hf_config(pretrained.path, pretrained.labels)
    config.get_text_config().pad_token_id = pretrained.hf_config["pad_token_id"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = _load_in_transformers(
            AutoModelForSequenceClassification, pretrained.path, config, dtype, dropout, ignore_mismatched_sizes=True
        )
    heads = tuple(f"{name}." for name in head_modules(model))
    for name, given, expected in report["mismatched_keys"]:
        if not name.startswith(heads):
            raise InputError(f"{pretrained.path}: {name} is {list(given)}, but config.json says {list(expected)}")
    missing = sorted(name for name in report["missing_keys"] if not REMADE.search(name))
    if lost := [name for name in missing if not name.startswith(heads)]:
        raise InputError(f"{pretrained.path} lacks {lost[0]}, unlike its config.json; copy the model again")
    return model, sorted({*missing, *(name for name, *_ in report["mismatched_keys"])})


def set_weight(model: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Put a copy of a tensor in the place of a parameter, in `dtype` but for what must be fp32."""
    kept = torch.float32 if keeps_fp32(name, dtype) else dtype
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, nn.Parameter(tensor.to(kept, copy=True)))


def read_weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model's files by name. Raises: InputError if a file is missing or damaged."""
    for file in _weight_files(path):
        yield from _read_file(file)


def quantize(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Turn the linear layers of a frozen model, but the head, into 4-bit ones that compute in `dtype`.

    Source: QLoRA, arXiv:2305.14314 (the format nf4), by bitsandbytes. Raises: InputError if that is not installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        raise InputError(
            'model.quantize needs bitsandbytes; pip install "etude-workbench[quant]", or leave it out'
        ) from None
    for name in find_targets(model, "all-linear"):
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise InputError(
                f"model.quantize: {name} is a {type(layer).__name__}, which cannot be quantised; leave it out"
            )
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
        )
        small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, small.to(device))


def find_targets(model: nn.Module, targets: str | list[str]) -> list[str]:
    """The linear modules that an adapter goes on: those whose names end in a target, or all; never the head.

    Raises: InputError that lists what there is if a target fits none.
    """
    head = getattr(model, "get_output_embeddings", lambda: getattr(model, "lm_head", None))()
    heads = [module for name in head_modules(model) for module in model.get_submodule(name).modules()] + [head]
    linear = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and not any(module is each for each in heads)
    ]
    if targets == "all-linear":
        return linear
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in linear if name == target or name.endswith("." + target)]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in linear})
            near = difflib.get_close_matches(target, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(
                f"adapter.targets: no linear layer is called {target!r}; {hint}there are {', '.join(known)}"
            )
        chosen.update(found)
    return [name for name in linear if name in chosen]


def head_modules(model: nn.Module) -> list[str]:
    """What a classifier has behind its body, BERT's pooler included: trained whole where a body is adapted.

    Of a model that is no classifier, none.
    """
    if not getattr(model, "labels", 0) and "ForSequenceClassification" not in type(model).__name__:
        return []
    children = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    body = getattr(model, "base_model_prefix", children[0])
    poolers = [name for name, _ in model.get_submodule(body).named_children() if name == "pooler"]
    return [f"{body}.{name}" for name in poolers] + [name for name in children if name != body]


def count_parts(model: nn.Module) -> dict[str, int]:
    """Exact parameters of the embedding of tokens, of a classifier's head, and of the rest, shared ones once."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = max(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    heads = [model.get_submodule(name) for name in head_modules(model)]
    head = sum(parameter.numel() for part in heads for parameter in part.parameters())
    return {"embedding": embedding, "rest": total - embedding - head, "head": head, "total": total}


def count_t5(config: T5Config) -> dict[str, int]:
    """Exact parameters by part, from the meta device."""
    counted = [(name, parameter.numel()) for name, parameter in empty_model(config).named_parameters()]
    parts = {"embedding": "shared", "encoder": "encoder", "decoder": "decoder", "head": "lm_head"}
    sizes = {part: sum(size for name, size in counted if name.startswith(start)) for part, start in parts.items()}
    return sizes | {"total": sum(sizes.values())}


def count_lora(pretrained: Pretrained, rank: int, targets: str | list[str], *, dora: bool = False) -> int:
    """Parameters of an adapter: rank x (in + out) for each target, and out more with DoRA. Raises: as find_targets."""
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
        return _empty_foreign(pretrained.path, pretrained.labels)
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
        raise InputError(f"model.revision is {revision!r}; expected a commit, tag or branch")
    commit = revision
    with_name = folder / "refs" / revision
    if with_name.is_file():
        commit = with_name.read_text("utf-8").strip()
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


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        values = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; copy the model again") from None
    except ValueError:
        raise InputError(f"{file} is not valid JSON; copy the model again") from None
    if not isinstance(values, dict):
        raise InputError(f"{file} is no object with keys; copy the model again")
    return values


def _weight_files(path: Path) -> list[Path]:
    if (path / _WEIGHTS).is_file():
        return [path / _WEIGHTS]
    if not (path / _INDEX).is_file():
        if pickled := sorted(path.glob("pytorch_model*.bin")):
            raise InputError(
                f"{path} has only {pickled[0].name}, a pickle, which could run code; `etude import {path} OUT` "
                "makes safetensors of it in a process apart"
            )
        raise InputError(f"{path} has no {_WEIGHTS}; copy the model again, with its weights")
    try:
        names = sorted(set(json.loads((path / _INDEX).read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{path / _INDEX} cannot be read; copy the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{path / _INDEX} names {name!r}, which is no file of the folder; copy the model again")
        if not (path / name).is_file():
            have = sum((path / other).is_file() for other in names)
            raise InputError(f"{path} lacks {name} ({have} of {len(names)} parts are there); copy the model again")
    return [path / name for name in names]


def _tensor_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for file in _weight_files(path):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                yield name, tuple(tensors.get_slice(name).get_shape())


def _read_file(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with _open(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118
            yield name, tensors.get_tensor(name)


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{file} is damaged or no safetensors file ({reason}); copy the model again") from None


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
            raise InputError(f"{path}: {name} is {list(shapes[name])}, but config.json says {list(wanted[name])}")


def _is_classifier(values: dict[str, Any]) -> bool:
    return "ForSequenceClassification" in str(values.get("architectures"))


def _inspect_classifier(path: Path, values: dict[str, Any]) -> Pretrained:
    """`hf_config` becomes that of a classifier: with the class that transformers loads, and an id to pad with."""
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
    names, labels = values.get("id2label"), 0
    if _is_classifier(values):
        labels = len(names) if isinstance(names, dict) else 2
    said = {**values, "architectures": [f"{_CLASSIFIERS.get(str(family))}ForSequenceClassification"]}
    padding = values.get("pad_token_id")
    if config is None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES

        theirs = _hf_config(path, labels or 2)
        said["architectures"] = [CLASSES[theirs.model_type]]
        padding = getattr(theirs.get_text_config(), "pad_token_id", None)
    if padding is None and family != "t5":  # transformers finds the last token of a text by what is not padding
        ends = values.get("eos_token_id")
        said["pad_token_id"] = (ends[0] if isinstance(ends, list) else ends) or 0
    elif padding is not None:
        said["pad_token_id"] = padding
    found = Pretrained(path, config, reason, said, _digest(path), {}, labels)
    return replace(found, parameters=count_parts(meta_model(found))) if labels else found


_CLASSIFIERS = {
    "roberta": "Roberta", "bert": "Bert", "t5": "T5", "qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama",
    "mistral": "Mistral",
}  # fmt: skip


def _digest(path: Path) -> str:
    """SHA-256 of all that makes the model, remembered while size and time of its files stay the same."""
    files = [path / "config.json", *_weight_files(path)]
    seen = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    place = durable.cache_folder() / "digests" / f"{hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]}.json"
    try:
        return str(json.loads(place.read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name} {durable.sha256_file(file)}\n".encode())
    durable.make_folder(place.parent)
    durable.write_json(place, {"files": seen, "sha256": total.hexdigest()})
    return total.hexdigest()


# Families that run through transformers


def _hf_config(path: Path, labels: int = 0) -> Any:
    """What config.json says; with labels that of a classifier. Raises: InputError if the family has no such form."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as families

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its many configurations raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: transformers cannot read config.json ({reason}); use another model") from None
    if labels:
        if config.model_type not in families.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            raise InputError(
                f"{path} is a {config.model_type} model, which has no form that scores labels; classification takes "
                "BERT, RoBERTa, ModernBERT, T5, Qwen2, Llama and their kin"
            )
        config.num_labels = labels
        return config
    # transformers offers a causal head to encoders too, where every position would see its own target.
    encoders = {*families.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation", "cpmant", "xlnet"}
    is_encoder = config.is_encoder_decoder or config.model_type in encoders
    is_causal = config.model_type in families.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not is_causal or (is_encoder and not getattr(config, "is_decoder", False)):
        raise InputError(
            f"{path} is a {config.model_type} model, which does not predict the next token; use a causal one"
        )
    return config


def _empty_foreign(path: Path, labels: int = 0) -> nn.Module:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = _hf_config(path, labels)
    kind: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model: Any = kind.from_config(config, trust_remote_code=False)
        model.tie_weights()
    except Exception as error:  # transformers raises whatever its many models raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: transformers cannot build what config.json says ({reason}); mend the file") from None
    built: nn.Module = model
    return built


def _count_foreign(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    model: Any = _empty_foreign(path)
    for name, parameter in model.named_parameters():
        # Some files leave out the name of the part that all but the head stand in.
        found = shapes.get(name, shapes.get(name.removeprefix(f"{model.base_model_prefix}.")))
        if found not in (None, tuple(parameter.shape)):
            raise InputError(f"{path}: {name} is {list(found)}, but config.json says {list(parameter.shape)}")
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    return {"embedding": embedding, "rest": total - embedding, "total": total}


def _load_foreign(path: Path, dtype: torch.dtype, dropout: float) -> nn.Module:
    from transformers import AutoModelForCausalLM

    model, report = _load_in_transformers(AutoModelForCausalLM, path, _hf_config(path), dtype, dropout)
    if missing := [name for name in report["missing_keys"] if not REMADE.search(name)]:
        raise InputError(f"{path} lacks {sorted(missing)[0]}, unlike its config.json; copy the model again")
    return model


def _load_in_transformers(
    kind: Any, path: Path, config: Any, dtype: torch.dtype, dropout: float, **settings: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and the report of transformers on what the files had."""
    from transformers.utils import logging

    for name in [name for name in vars(config) if re.fullmatch(r"\w*(dropout|pdrop)(_prob)?", name)]:
        if isinstance(getattr(config, name), float | int):
            setattr(config, name, dropout)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, report = kind.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, **settings,
        )  # fmt: skip
    except Exception as error:  # transformers raises whatever its many models raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: transformers cannot load the model ({reason}); copy it again") from None
    return model, report
