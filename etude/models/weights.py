"""The files of a model: their tensors, one after another, and the digest that names them in records."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from etude import durable
from etude.errors import InputError
from etude.models import compressed
from etude.models.config_checks import refuse_conflicts
from etude.records import shape

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DIGEST = shape.Object({"sha256": Annotated[str, shape.matching(r"[0-9a-f]{64}")]})
Put = Callable[[str, torch.Tensor], None]  # takes a whole weight by its name
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# Names, shapes and offsets of the tensors of a file: a few hundred bytes for each.
_LARGEST_HEADER_BYTES = 16 << 20
# Buffers that older files carry and every model makes anew, and what T5's files have twice or to no use.
REMADE = re.compile(
    r"(rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias|attention\.bias|attention\.masked_bias"
    r"|^(encoder|decoder)\.embed_tokens\.weight|EncDecAttention\.relative_attention_bias\.weight)$"
)


def read_config(path: Path) -> dict[str, Any]:
    """The values of config.json. Raises: InputError if it says one thing twice and not the same."""
    values = durable.read_json_object(path / "config.json")
    try:
        refuse_conflicts(values)
    except InputError as error:
        raise InputError(f"{path}/{error}") from None
    return values


def open_tensors(file: Path) -> Any:
    """A safetensors file, open for reading. Raises: InputError for anything else; no pickle is opened."""
    from safetensors import SafetensorError, safe_open

    with durable.open_plain(file) as opened:
        start = opened.read(8)
    header = int.from_bytes(start, "little")
    try:
        if header <= _LARGEST_HEADER_BYTES:
            return safe_open(file, framework="pt")
        reason = f"its header claims {header:,} bytes"
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:100].rstrip(".")
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        wrong = "it is a pickle, which could run code and is never opened"
        raise InputError(f"{file} is not a safetensors file: {wrong}; give weights as safetensors")
    raise InputError(f"{file} is not a safetensors file, or is damaged ({reason}); copy it again")


def has_weights(path: Path) -> bool:
    """True if a model's folder has files of weights, or a list of them."""
    return (path / _WEIGHTS).is_file() or (path / _INDEX).is_file()


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model's files, without reading it.

    Raises: InputError if a file is damaged, two have the same tensor, or weights are whole numbers.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file, tensors, name in stored(path):
        part = tensors.get_slice(name)
        if compressed.is_part(name, tensors):
            continue
        if name.endswith(".weight_packed"):
            shapes[name.removesuffix("_packed")] = compressed.read_shape(file, tensors, name)
            continue
        if name in shapes:
            raise InputError(f"{path} has {name[:80]} in two of its files; copy the model again")
        is_weight = name.endswith((".weight", ".bias")) and not REMADE.search(name)
        if is_weight and part.get_dtype() not in _FLOATS:
            wrong = f"{name[:80]} holds {part.get_dtype()} numbers; expected F32, BF16 or F16"
            raise InputError(f"{file}: {wrong}; give the model that it was made of")
        shapes[name] = tuple(part.get_shape())
    return shapes


def stored_dtypes(path: Path) -> tuple[dict[str, torch.dtype], torch.dtype]:
    """The dtype of every floating-point tensor, from headers alone, and that of most numbers."""
    dtypes: dict[str, torch.dtype] = {}
    sizes: Counter[torch.dtype] = Counter()
    for _, tensors, name in stored(path):
        part = tensors.get_slice(name)
        if (dtype := _FLOATS.get(part.get_dtype())) is not None:
            dtypes[name] = dtype
            sizes[dtype] += math.prod(part.get_shape())
    return dtypes, sizes.most_common(1)[0][0] if sizes else torch.float32


def read_weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model's files by name, quantised weights as numbers.

    Raises: InputError if a file is missing or damaged.
    """
    for file, tensors, name in stored(path):
        if name.endswith(".weight_packed"):
            yield name.removesuffix("_packed"), compressed.read_weight(file, tensors, name)
        elif not compressed.is_part(name, tensors):
            yield name, tensors.get_tensor(name)


def read_weight(path: Path, names: Collection[str]) -> torch.Tensor | None:
    """The first tensor that has one of these names, without reading others; or None. Raises: the same."""
    for _, tensors, name in stored(path):
        if name in names:
            tensor: torch.Tensor = tensors.get_tensor(name)
            return tensor
    return None


def check_twins(path: Path, names: Iterable[str], place: Callable[[str], str]) -> None:
    """Raises: InputError if two tensors of one place in a model, as `place` names it, differ."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(place(name), name)
        if other != name and not is_same(read_weight(path, (other,)), read_weight(path, (name,))):
            wrong = f"{other} and {name} are one tensor of this model, but its files have two that differ"
            raise InputError(f"{path}: {wrong}; copy the model again, or leave out the wrong one")


def is_same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """True if two tensors have the same shape and numbers, whatever their dtypes."""
    if one is None or other is None or one.shape != other.shape:
        return False
    common = torch.promote_types(one.dtype, other.dtype)
    return torch.equal(one.to(common), other.to(common))


def set_weight(model: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Put a copy of a tensor in the place of a parameter, in `dtype` but for what must be fp32."""
    kept = torch.float32 if keeps_fp32(name, dtype) else dtype
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, nn.Parameter(tensor.to(kept, copy=True)))


def lay_out(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters of a model on the meta device the dtypes in which its weights are kept."""
    for name, parameter in list(model.named_parameters()):
        set_weight(model, name, parameter.detach(), dtype)


def in_place(model: nn.Module) -> Put:
    """Weights go into a model from the meta device, in the dtypes of its parameters there."""
    return lambda name, tensor: set_weight(model, name, tensor, model.get_parameter(name).dtype)


def keeps_fp32(name: str, dtype: torch.dtype) -> bool:
    """True if a parameter stays fp32 in a model whose other weights are loaded in `dtype`."""
    return name.endswith("norm.weight") or (dtype == torch.float16 and name.endswith(".wo.weight"))


def check_whole(path: Path) -> None:
    """Read all files whole. Raises: InputError if one has changed though size, time and samples say no."""
    for file in _weight_files(path):
        remembered = file_digest(file)
        if durable.sha256_file(file) != remembered:
            wrong = "has changed though its size and time have not"
            raise InputError(f"{file} {wrong}; copy it again, or touch it")


def digest(path: Path) -> str:
    """SHA-256 of all that makes the model, by what its files hold now."""
    total = hashlib.sha256()
    for file in [path / "config.json", *_weight_files(path)]:
        total.update(f"{file.name} {file_digest(file)}\n".encode())
    return total.hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file; that of a very large one is remembered while size, time and samples stay."""
    size, *_, found = key = durable.content_key(file)
    if not durable.is_sampled(size):
        return str(found)
    name = hashlib.sha256(json.dumps([str(file.resolve()), *key]).encode()).hexdigest()[:32]
    place = durable.cache_folder("digests") / f"{name}.json"
    try:
        return str(shape.fit(durable.read_json_object(place, follow=False), _DIGEST)["sha256"])
    except (InputError, ValueError):
        pass
    whole = durable.sha256_file(file)
    durable.make_folder(place.parent)
    durable.write_json(place, {"file": str(file), "sha256": whole})
    return whole


def stored(path: Path) -> Iterator[tuple[Path, Any, str]]:
    """(file, its tensors, name) of each tensor of a model's files; a file is closed behind its last one."""
    for file in _weight_files(path):
        with open_tensors(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                yield file, tensors, name


def _weight_files(path: Path) -> list[Path]:
    if (path / _WEIGHTS).is_file():
        return [path / _WEIGHTS]
    if not (path / _INDEX).is_file():
        if pickled := sorted(path.glob("pytorch_model*.bin")):
            wrong = f"{path} has only {pickled[0].name}, a pickle, which could run code"
            advice = f"`etude import {path} OUT` makes safetensors of it in a process apart"
            raise InputError(f"{wrong}; {advice}")
        raise InputError(f"{path} has no {_WEIGHTS}; copy the model again, with its weights")
    weight_map = durable.read_json_object(path / _INDEX).get("weight_map")
    is_map = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not is_map or not weight_map:
        raise InputError(f"{path / _INDEX} has no weight_map from tensors to files; copy the model again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            wrong = f"names {name[:80]!r}, which is no safetensors file of the folder"
            raise InputError(f"{path / _INDEX} {wrong}; copy the model again")
        if not (path / name).is_file():
            there = f"{sum((path / other).is_file() for other in names)} of {len(names)} parts are there"
            raise InputError(f"{path} lacks {name} ({there}); copy the model again")
    return [path / name for name in names]
