"""An adapter in a folder of PEFT: its config read key by key, its tensors held against the base."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from etude import durable
from etude.errors import InputError
from etude.models.hf_config import quoted
from etude.models.lora import ADAPTER_FILE, CLASSIFIER, CONFIG_FILE, PREFIX
from etude.models.parts import find_targets, head_modules, linear_shape
from etude.recipe.model import Adapter

# What an adapter of PEFT may also have and the layer here has not; these values mean that it is not used.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": (None, "none"), "lora_bias": (None, False), "trainable_token_indices": (None,),
    "layer_replication": (None,), "target_parameters": (None, []), "use_qalora": (None, False),
    "use_bdlora": (None, False), "alora_invocation_tokens": (None,), "arrow_config": (None,),
    "megatron_config": (None,), "ensure_weight_tying": (None, False),
}  # fmt: skip
# Keys that are read, and keys of how A and B were first drawn, which tool wrote the file, or where it ran.
_KNOWN = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout",
    "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save", "init_lora_weights", "peft_version",
    "inference_mode", "fan_in_fan_out", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size", "runtime_config", "auto_mapping",
})  # fmt: skip
# What a key of a later PEFT is written with while nobody uses it.
_OFF: tuple[Any, ...] = (None, False, {}, [])
# Ways of PEFT to draw A and B that leave the base as it is.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
_MERGE = "merge it with PEFT first"
# Modules at the two ends of a model, of which PEFT can adapt or save what is not a linear layer of a block.
_ENDS = re.compile(
    r"(^|\.)(lm_head|embed_out|embed_tokens|embed_in|word_embeddings|wte|wpe|shared|score|classifier)$"
)
_PATTERN_SECONDS = 3


@dataclass(frozen=True)
class SavedAdapter:
    """The values of adapter_config.json.

    recipe    rank, alpha and the kind of the update, as a recipe has them, without the targets of the file
    ranks     ranks of modules whose names end in a match of a regular expression; the first one holds
    alphas    the same of alpha
    targets   module names, their last parts, "all-linear", or a regular expression for whole names
    excluded  the same of modules that are left as they are
    layers    numbers of the adapted blocks, None for all
    lists     names of the lists that these blocks stand in, () for any

    modules_to_save: those saved whole, by the last parts of their names.
    """

    recipe: Adapter
    ranks: dict[str, int]
    alphas: dict[str, float]
    base: str | None
    revision: str | None
    task: str | None
    targets: str | list[str]
    excluded: str | list[str]
    layers: tuple[int, ...] | None
    lists: tuple[str, ...]
    modules_to_save: tuple[str, ...]


def read_adapter_config(folder: Path) -> SavedAdapter:
    """The adapter in a folder of PEFT. Raises: InputError if it is no LoRA, or may have more than that."""
    file = folder / CONFIG_FILE
    values = durable.read_json_object(file)
    if values.get("peft_type") != "LORA":
        raise InputError(f"{file} is of peft_type {quoted(values.get('peft_type'))}; only LORA can be loaded")
    made = values.get("init_lora_weights")
    if isinstance(made, str) and made.lower() not in _PLAIN_STARTS:
        wrong = f"init_lora_weights = {quoted(made)}, which changed the base too"
        advice = "or save it again with path_initial_model_for_weight_conversion"
        raise InputError(f"{file} has {wrong}; {_MERGE}, {advice}")
    task = _text(file, values, "task_type")
    for name, value in values.items():
        neutral = _NEUTRAL.get(name, _OFF)
        if name == "modules_to_save" and task != CLASSIFIER:
            neutral = (None, [])
        elif name in _KNOWN:
            continue
        if not any(type(value) is type(unused) and value == unused for unused in neutral):
            is_known = name in _NEUTRAL or name in _KNOWN
            what = "is not supported" if is_known else "is unknown and may change the result"
            key = quoted(name)[1:-1]
            raise InputError(f"{file} has {key} = {quoted(value)}, which {what}; {_MERGE}")
    targets = _names(file, values, "target_modules")
    if not targets:
        raise InputError(f"{file} names no target_modules; write it again with PEFT")
    layers = values.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers
    if layers is not None and (not isinstance(layers, list) or not all(type(each) is int for each in layers)):
        raise _unfit(file, "layers_to_transform", layers, "numbers of blocks")
    lists = _names(file, values, "layers_pattern")
    lists = [lists] if isinstance(lists, str) else lists
    if not all(re.fullmatch(r"\w+", name) for name in lists) or (layers and isinstance(targets, str)):
        wrong = "layers_pattern or layers_to_transform that PEFT would not apply"
        raise InputError(f"{file} has {wrong}; {_MERGE}")
    whole = _names(file, values, "modules_to_save")
    return SavedAdapter(
        recipe=_recipe(file, values),
        ranks=_pattern(file, values, "rank_pattern"),
        alphas=_pattern(file, values, "alpha_pattern"),
        base=_text(file, values, "base_model_name_or_path"),
        revision=_text(file, values, "revision"),
        task=task,
        targets=targets,
        excluded=_names(file, values, "exclude_modules"),
        layers=tuple(layers) if layers else None,
        lists=tuple(filter(None, lists)),
        modules_to_save=(whole,) if isinstance(whole, str) else tuple(whole),
    )


def adapted_modules(
    folder: Path, saved: SavedAdapter, tensors: dict[str, Tensor], model: nn.Module
) -> dict[str, Adapter]:
    """The modules of a base that an adapter goes on, each with its rank and alpha, in the order of the model.

    Raises: InputError unless the file has the tensors of exactly those modules, in their shapes.
    """
    file, modules = folder / ADAPTER_FILE, dict(model.named_modules())
    if bare := next((key for key in tensors if not key.startswith(PREFIX)), None):
        wrong = f"{file} calls a tensor {bare[:80]}; PEFT's names begin with {PREFIX}"
        raise InputError(f"{wrong}; save it with PEFT")
    linear = find_targets(model, "all-linear")
    targeted = _targeted(folder / CONFIG_FILE, saved, list(modules), linear)
    adapted: dict[str, dict[str, Tensor]] = {}
    whole, heads = [], tuple(f"{head}." for head in head_modules(model))
    for key, tensor in tensors.items():
        name, _, part = key.removeprefix(PREFIX).partition(".lora_")
        if part:
            adapted.setdefault(name, {})[f"lora_{part}"] = tensor
        elif not name.startswith(heads):
            whole.append(name)
    for name in sorted({*targeted, *adapted} - set(linear)):
        if _ENDS.search(name):
            what = "the head or an embedding; only the linear layers between them can be adapted here"
            raise InputError(f"{folder} adapts {name[:80]}, {what}; {_MERGE}")
    if whole:
        raise InputError(f"{file} has {whole[0][:80]} whole, which is not supported; {_MERGE}")
    for name in adapted:
        if name not in modules:
            wrong = f"{name[:80]}, which its base does not have; it belongs to another model"
            raise InputError(f"{folder} adapts {wrong}")
        if name not in linear:
            raise InputError(f"{folder} adapts {name}, which is no linear layer; {_MERGE}")
        if name not in targeted:
            wrong = f"has tensors of {name}, which {CONFIG_FILE} does not target"
            raise InputError(f"{file} {wrong}; save it again")
    for name in linear:
        if name in targeted and name not in adapted:
            wrong = f"lacks the tensors of {name}, which {CONFIG_FILE} targets"
            raise InputError(f"{file} {wrong}; save it again")
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{file}: {key} holds {dtype} numbers; {_MERGE}")
    recipes = _recipes(folder / CONFIG_FILE, saved, [name for name in modules if name in adapted])
    for name, recipe in recipes.items():
        _check_layer(f"{file}: {name}", recipe, modules[name], adapted[name])
    return recipes


def whole_names(folder: Path, saved: SavedAdapter, tensors: dict[str, Tensor], model: nn.Module) -> list[str]:
    """The modules of a classifier's head that an adapter file has. Raises: InputError if one lacks a part."""
    names, file = [], folder / ADAPTER_FILE
    for head in head_modules(model):
        module = model.get_submodule(head)
        wanted = {f"{PREFIX}{head}.{name}": part.shape for name, part in module.named_parameters()}
        if not tensors.keys() & wanted and not any(_ends_in(head, last) for last in saved.modules_to_save):
            continue
        names.append(head)
        for key, shape in wanted.items():
            if key not in tensors:
                raise InputError(f"{file} lacks {key}, a part of the head; save it again")
            if tensors[key].shape != shape:
                raise InputError(f"{file}: {key} is {list(tensors[key].shape)}, the base has {list(shape)}")
    return names


def check_same(folder: Path, saved: SavedAdapter, recipe: Adapter) -> None:
    """Raises: InputError if the adapter saved in a folder computes another update than that of a recipe."""
    for name, patterns in (("rank", saved.ranks), ("alpha", saved.alphas)):
        if patterns:
            both = f"{name}_pattern = {quoted(patterns)}, and a recipe one adapter.{name} for all modules"
            advice = f"{_MERGE}, and name that model as model.from"
            raise InputError(f"the adapter in {folder} has {both}; {advice}")
    for name in ("rank", "alpha", "rank_stabilized", "dora"):
        theirs, ours = getattr(saved.recipe, name), getattr(recipe, name)
        if theirs != ours:
            shown = str(theirs).lower() if isinstance(theirs, bool) else f"{theirs:g}"
            both = f"adapter.{name} is {ours!r}, but the adapter in {folder} has {shown}"
            raise InputError(f"{both}; use {shown}")


def _recipe(file: Path, values: dict[str, Any]) -> Adapter:
    for name in ("use_rslora", "use_dora"):
        if not isinstance(values.get(name), bool | None):
            raise _unfit(file, name, values[name], "true or false")
    try:
        alpha, dropout = (
            float(value) if type(value) is int else value
            for value in (values.get("lora_alpha"), values.get("lora_dropout"))
        )
        return Adapter.model_validate({
            "rank": values.get("r"), "alpha": alpha, "dropout": 0.0 if dropout is None else dropout,
            "rank_stabilized": bool(values.get("use_rslora")), "dora": bool(values.get("use_dora")),
        })  # fmt: skip
    except (ValueError, OverflowError):
        shown = {name: values.get(name) for name in ("r", "lora_alpha", "lora_dropout")}
        raise InputError(
            f"{file} does not describe a LoRA adapter ({quoted(shown, 80)}); expected r from 1 to 4096, "
            "lora_alpha above 0, lora_dropout from 0 to below 1; write it again with PEFT"
        ) from None


def _pattern(file: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    """A rank or an alpha by regular expression for the ends of names of modules."""
    pattern = {} if values.get(name) is None else values[name]
    part, least = ("r", "from 1 to 4096") if name == "rank_pattern" else ("lora_alpha", "above 0")
    if not isinstance(pattern, dict):
        raise _unfit(file, name, pattern, "an object of modules")
    read = {}
    for key, value in pattern.items():
        try:
            recipe = _recipe(file, {"r": 1, "lora_alpha": 1.0, part: value})
        except InputError:
            raise _unfit(file, name, {key: value}, f"numbers {least}") from None
        read[key] = recipe.rank if part == "r" else recipe.alpha
    return read


def _recipes(file: Path, saved: SavedAdapter, names: list[str]) -> dict[str, Adapter]:
    """Rank and alpha of each module, as in PEFT those of the first pattern that the end of its name fits."""
    changes: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, patterns in (("rank", saved.ranks), ("alpha", saved.alphas)):
        numbers = list(patterns.values())
        for name, place in _match(file, [rf"(.*\.)?({end})" for end in patterns], names).items():
            changes[name][key] = numbers[place]
    return {name: saved.recipe.model_copy(update=update) for name, update in changes.items()}


def _text(file: Path, values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise _unfit(file, name, value, "a text or null")
    return value


def _names(file: Path, values: dict[str, Any], name: str) -> str | list[str]:
    value = [] if values.get(name) is None else values[name]
    if not all(isinstance(item, str) for item in (value if isinstance(value, list) else [value])):
        raise _unfit(file, name, value, "names of modules")
    return value


def _unfit(file: Path, name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{file} has {name} = {quoted(value)}; expected {expected}; mend the file")


def _targeted(file: Path, saved: SavedAdapter, names: list[str], linear: list[str]) -> set[str]:
    """The names of modules that a config means, as PEFT reads it."""

    def chosen(given: str | list[str]) -> set[str]:
        if isinstance(given, str):
            return set(_match(file, [given], names))
        return {name for name in names if any(_ends_in(name, last) for last in given)}

    targets = set(linear) if saved.targets == "all-linear" else chosen(saved.targets)
    targets -= chosen(saved.excluded) if saved.excluded else set()
    targets -= {name for name in targets if any(f".{last}." in f".{name}." for last in saved.modules_to_save)}
    if saved.layers is None:
        return targets
    lists = "|".join(saved.lists) or "[^.]*"
    places = {name: re.match(rf".*\.(?:{lists})\.(\d+)\.", name) for name in targets}
    return {name for name, place in places.items() if place and int(place[1]) in saved.layers}


def _ends_in(name: str, last: str) -> bool:
    return name == last or name.endswith(f".{last}")


def _match(file: Path, patterns: list[str], names: list[str]) -> dict[str, int]:
    """The names that a regular expression matches whole, and the place of the first one that does.

    A process apart tries, since some expressions take for ever.
    """
    if all(re.fullmatch(r"\w+", pattern) for pattern in patterns):
        return {name: patterns.index(name) for name in names if name in patterns}
    program = (
        "import json, re, sys\n"
        "patterns, names = json.load(sys.stdin)\n"
        "tests = [re.compile(pattern).fullmatch for pattern in patterns]\n"
        "first = {name: next((at for at, test in enumerate(tests) if test(name)), None) for name in names}\n"
        "print(json.dumps({name: at for name, at in first.items() if at is not None}))"
    )
    shown = quoted(patterns[0] if len(patterns) == 1 else patterns)
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], input=json.dumps([patterns, names]), check=True,
            capture_output=True, timeout=_PATTERN_SECONDS, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        wrong = f"matching {shown} takes more than {_PATTERN_SECONDS} s"
        raise InputError(f"{file}: {wrong}; list the names of the modules") from None
    except (subprocess.CalledProcessError, UnicodeError):
        raise InputError(f"{file}: {shown} is no regular expression; list the names of the modules") from None
    return dict(json.loads(ended.stdout))


def _check_layer(where: str, recipe: Adapter, module: nn.Module, parts: dict[str, Tensor]) -> None:
    """Raises: InputError if the tensors of one adapted layer are not those of its rank and its base."""
    outputs, inputs = linear_shape(module)
    wanted: dict[str, tuple[int, ...]] = {
        "lora_A.weight": (recipe.rank, inputs), "lora_B.weight": (outputs, recipe.rank)
    }  # fmt: skip
    if recipe.dora:
        wanted["lora_magnitude_vector"] = (outputs,)
    for part in [*wanted, *parts]:
        if part not in parts:
            raise InputError(f"{where} lacks {part}; save the adapter again")
        if part not in wanted:
            hint = ", but use_dora is false" if part == "lora_magnitude_vector" else ""
            raise InputError(f"{where} has {part[:40]}, which is not supported{hint}; {_MERGE}")
        if tuple(parts[part].shape) != wanted[part]:
            both = (
                f"{list(parts[part].shape)}, but r = {recipe.rank} and the base ask for {list(wanted[part])}"
            )
            raise InputError(f"{where}.{part} is {both}; save the adapter again")
