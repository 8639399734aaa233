"""Weights of 4 or 8 bits in the layout of compressed-tensors: rounded or calibrated, and written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.engine.tensor_files import read_tensors, safetensors
from etude.errors import InputError
from etude.export import load_model
from etude.models import weights
from etude.models.compressed import CONFIG, Scheme
from etude.models.families.foreign import FOREIGN
from etude.models.families.table import family_of
from etude.models.parts import linear_shape
from etude.quantize.calibrate import Layer, layers_of_blocks, quantize_layers
from etude.quantize.scoring import Examiner
from etude.quantize.sensitivity import choose_whole
from etude.report.quantized import Packed

BITS = {"int8": 8, "int4": 4}
_GROUPS = (128, 64, 32)
_MEASURED = 32  # calibration samples with which the parts are measured
_CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices for weights of 4 or 8 bits.

    bits         4 or 8
    method       gptq or round; None: gptq for 4 bits, round for 8
    group        inputs that share a scale; 0: all of an output; None: all for 8 bits, and for 4 the largest
                 of 128, 64 and 32 that divides the inputs of every layer
    calibration  training samples with which it is calibrated
    most_loss    share of the original's validation loss that it may cost
    """

    bits: int
    method: str | None = None
    group: int | None = None
    calibration: int = 128
    most_loss: float = 0.02

    def __post_init__(self) -> None:
        if self.bits not in BITS.values():
            raise InputError(f"there are no weights of {self.bits} bits; use 4 or 8")
        if self.method not in (None, "gptq", "round"):
            raise InputError(f"--method {self.method} is not known; use gptq or round")
        if self.group is not None and self.group < 0:
            raise InputError(f"--group is {self.group}; give 0 for a scale an output, or a size such as 128")
        if self.calibration < 1:
            raise InputError(f"--calibration is {self.calibration}; give a number of samples such as 128")

    @property
    def file(self) -> str:
        """The name of the file of the weights."""
        return checkpoints.MODEL_FILE

    @property
    def advice(self) -> str:
        """Changes that make it cost less."""
        return (
            "ask for more bits, --method gptq, a smaller --group, more --calibration samples, or allow more"
        )

    def check(self, whole: Path, model: nn.Module) -> None:
        """Raises: InputError if no group divides the inputs of the layers, or etude does not compute it."""
        _choose_scheme(model, self)

    def write(self, hidden: Path, whole: Path, model: nn.Module, examiner: Examiner) -> Packed:
        """Quantise a model, and write its files into a folder; `whole` has those of the original."""
        scheme = _choose_scheme(model, self)
        made = _quantize(model, whole, scheme, self, examiner)
        _write(hidden, whole, model, made, scheme)
        return Packed(
            bits=scheme.bits, group=scheme.group, method=made.method, calibration=made.calibration,
            layers=len(made.layers), kept=made.kept, costs=made.costs,
        )  # fmt: skip

    def read(self, hidden: Path, whole: Path, objective: str | None) -> nn.Module:
        """The model in the written files."""
        return load_model(hidden, dtype=torch.float32, objective=objective)


@dataclass(frozen=True)
class _Made:
    layers: dict[str, Layer]
    kept: list[str]
    costs: dict[str, float]
    method: str
    calibration: int


def _choose_scheme(model: nn.Module, settings: Settings) -> Scheme:
    """The scheme for the layers of a model. Raises: InputError if no group divides their inputs."""
    if family_of(model) is FOREIGN:
        name = type(model).__name__
        raise InputError(f"{name} runs through transformers; etude quantises the models it computes itself")
    names = [name for block in layers_of_blocks(model) for name in block]
    inputs = {name: linear_shape(model.get_submodule(name))[1] for name in names}
    group = settings.group
    if group is None and settings.bits == 4:
        group = next((each for each in _GROUPS if not any(size % each for size in inputs.values())), None)
        if group is None:
            sizes = ", ".join(f"{size:,}" for size in sorted(set(inputs.values())))
            wrong = f"layers have {sizes} inputs, which no group of 128, 64 or 32 divides"
            raise InputError(f"{wrong}; give --group, or --group 0 for a scale an output")
    for name, size in inputs.items():
        if group and size % group:
            raise InputError(f"--group {group} does not divide the {size:,} inputs of {name}; give another")
    return Scheme(settings.bits, group or None)


def _quantize(model: nn.Module, whole: Path, scheme: Scheme, settings: Settings, examiner: Examiner) -> _Made:
    method = settings.method or ("gptq" if scheme.bits == 4 else "round")
    batches = examiner.training_batches(settings.calibration)
    names = [name for block in layers_of_blocks(model) for name in block]
    stored, main = weights.stored_dtypes(whole)
    layers = quantize_layers(
        model, scheme, {name: stored.get(f"{name}.weight", main) for name in names},
        (lambda: examiner.run(model, batches)) if method == "gptq" else None,
    )  # fmt: skip
    few = batches[:: -(-len(batches) // _MEASURED)]
    kept, costs = choose_whole(model, layers, lambda: examiner.training_loss(model, few), settings.most_loss)
    quantized = {name: layer for name, layer in layers.items() if name not in kept}
    return _Made(quantized, kept, costs, method, len(batches) if method == "gptq" else 0)


def _write(hidden: Path, whole: Path, model: nn.Module, made: _Made, scheme: Scheme) -> None:
    """Write the files of the whole model with quantised layers in place of theirs; the card comes later."""
    tensors = read_tensors(whole / checkpoints.MODEL_FILE)
    for name, layer in made.layers.items():
        del tensors[f"{name}.weight"]
        tensors |= layer.to_file(name, scheme)
    config: dict[str, Any] = durable.read_json_object(whole / "config.json")
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    left = [name for name in linear if name not in made.layers]
    made_config = json.dumps({**config, CONFIG: scheme.to_config(left)}, indent=2).encode()
    for path in whole.iterdir():
        if path.name not in (checkpoints.MODEL_FILE, "config.json", _CARD):
            durable.write_file(durable.inside(hidden, path.name), [path.read_bytes()])
    durable.write_file(hidden / "config.json", made_config)
    durable.write_file(hidden / checkpoints.MODEL_FILE, safetensors(tensors))
