"""The files of a model: what tensors they hold, one after another, and what names them in records."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.errors import InputError
from etude.models.t5 import keeps_fp32

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Buffers that older files carry and every model makes anew, and what T5's files have twice or to no use.
REMADE = re.compile(
    r"(rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias|attention\.bias|attention\.masked_bias"
    r"|^(encoder|decoder)\.embed_tokens\.weight|EncDecAttention\.relative_attention_bias\.weight)$"
)


def read_config(path: Path) -> dict[str, Any]:
    """What config.json says. Raises: InputError if it cannot be read."""
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


def tensor_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, without reading it. Raises: InputError if a file is missing or damaged."""
    for file in _weight_files(path):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                yield name, tuple(tensors.get_slice(name).get_shape())


def read_weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model's files by name. Raises: InputError if a file is missing or damaged."""
    for file in _weight_files(path):
        yield from _read_file(file)


def read_weight(path: Path, names: Collection[str]) -> torch.Tensor | None:
    """The first tensor that has one of these names, without reading others; None if there is none. Raises: the same."""
    for file in _weight_files(path):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name in names:
                    tensor: torch.Tensor = tensors.get_tensor(name)
                    return tensor
    return None


def set_weight(model: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Put a copy of a tensor in the place of a parameter, in `dtype` but for what must be fp32."""
    kept = torch.float32 if keeps_fp32(name, dtype) else dtype
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, nn.Parameter(tensor.to(kept, copy=True)))


def digest(path: Path) -> str:
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
