"""Weights of 4 or 8 bits as compressed-tensors stores them (`pack-quantized`): words of codes, and scales.

A weight is code times scale. A code is a whole number from -2^(bits - 1) to 2^(bits - 1) - 1, stored with
2^(bits - 1) added to it; the first of a word stands in its lowest bits. A scale is that of a group of inputs
of one output, or of all its inputs. transformers reads it, and vLLM by its own documentation.

Shapes: (out, in) weight and codes; (out, in x bits / 32) words, rounded up; (out, groups) scales

Source: github.com/vllm-project/compressed-tensors, 0.20.1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from etude.errors import InputError

CONFIG = "quantization_config"
_WORD = 32
_PARTS = ("packed", "scale", "shape")
# Layers that transformers makes of a tied head: no tensor of a file, and never quantised.
_TIED_HEADS = ("lm_head", "lm_head.decoder", "cls.predictions.decoder")


@dataclass(frozen=True)
class Scheme:
    """Bits of a code, 4 or 8, and the inputs that share a scale; None: all of an output."""

    bits: int
    group: int | None = None

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def size(self, inputs: int) -> int:
        """The inputs that share a scale, of so many."""
        return self.group or inputs

    def stored_bytes(self, outputs: int, inputs: int, scale_bytes: int) -> int:
        """Bytes of a weight in a file: its words, scales and shape."""
        words = -(-inputs * self.bits // _WORD)
        return outputs * (4 * words + scale_bytes * (inputs // self.size(inputs))) + 16

    def to_config(self, whole: list[str]) -> dict[str, Any]:
        """The quantization_config of a config.json; whole: linear layers that are not quantised."""
        weights = {
            "num_bits": self.bits, "type": "int", "symmetric": True, "dynamic": False,
            "strategy": "group" if self.group else "channel", "group_size": self.group,
        }  # fmt: skip
        group = {
            "targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None,
            "format": "pack-quantized",
        }  # fmt: skip
        return {
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "quantization_status": "compressed", "config_groups": {"group_0": group},
            "ignore": list(dict.fromkeys([*whole, *_TIED_HEADS])), "kv_cache_scheme": None,
        }  # fmt: skip


def read_scheme(path: Path, config: Any) -> Scheme:
    """The scheme in the quantization_config of a folder. Raises: InputError for any other."""
    found = config if isinstance(config, dict) else {}
    groups = found.get("config_groups")
    groups = list(groups.values()) if isinstance(groups, dict) else []
    group = groups[0] if len(groups) == 1 and isinstance(groups[0], dict) else {}
    weights = group.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    scheme = Scheme(weights.get("num_bits", 0), weights.get("group_size"))
    formats = {found.get("format"), group.get("format") or "pack-quantized"}
    is_known = (
        (found.get("quant_method"), formats) == ("compressed-tensors", {"pack-quantized"})
        and (weights.get("type"), weights.get("symmetric")) == ("int", True)
        and weights.get("strategy") == ("group" if scheme.group else "channel")
        and not any(group.get(name) for name in ("input_activations", "output_activations"))
        and not found.get("kv_cache_scheme")
        and type(scheme.bits) is int and scheme.bits in (4, 8)
        and (scheme.group is None or (type(scheme.group) is int and scheme.group > 0))
    )  # fmt: skip
    if not is_known:
        wrong = "holds quantised weights that are not of 4 or 8 bits as etude exports them"
        raise InputError(f"{path} {wrong}; give the model they were made of")
    return scheme


def encode(weight: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """The nearest codes of a weight, int8."""
    codes = _by_group(weight.float(), scheme).div(scales.float()[..., None]).round()
    return codes.clamp(scheme.lowest, scheme.highest).to(torch.int8).flatten(1)


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """The weight that codes stand for, in the dtype of the scales, as other readers compute it."""
    grouped = codes.to(scales.dtype).view(*scales.shape, -1)
    return (grouped * scales[..., None]).flatten(1)


def choose_scales(
    weight: Tensor, scheme: Scheme, dtype: torch.dtype, importance: Tensor | None = None
) -> Tensor:
    """Scales (out, groups) in the dtype in which they are stored.

    Those of 8 bits reach to the largest weight of a group. Those of 4 bits may cut it, where that makes the
    sum of squared errors smaller. importance: (in,) weights of the errors.
    """
    grouped = _by_group(weight.float(), scheme)
    least = torch.finfo(dtype).tiny
    widest = grouped.abs().amax(dim=-1) / (scheme.highest + 0.5)
    best = widest.to(dtype).clamp(min=least)
    if scheme.bits > 4:
        return best
    weights = torch.ones(weight.shape[1]) if importance is None else importance
    weights = weights.to(grouped).view(grouped.shape[1:])
    errors = torch.full_like(widest, torch.inf)
    for share in torch.linspace(1.0, 0.6, 21).tolist():
        scales = (share * widest).to(dtype).clamp(min=least)
        wide = scales.float()[..., None]
        rounded = (grouped / wide).round_().clamp_(scheme.lowest, scheme.highest).mul_(wide)
        error = (rounded.sub_(grouped).square_() * weights).sum(dim=-1)
        is_less = error < errors
        best, errors = torch.where(is_less, scales, best), torch.where(is_less, error, errors)
    return best


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (out, in) as words (out, in x bits / 32) int32, rounded up."""
    each = _WORD // bits
    raised = codes.to(torch.int64) + (1 << (bits - 1))
    raised = functional.pad(raised, (0, -codes.shape[1] % each)).view(len(codes), -1, each)
    words = (raised << (bits * torch.arange(each))).sum(dim=-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack(words: Tensor, bits: int, inputs: int) -> Tensor:
    """Words as codes (out, in), int8."""
    each = _WORD // bits
    raised = (words[..., None] >> (bits * torch.arange(each))) & ((1 << bits) - 1)
    return (raised - (1 << (bits - 1))).to(torch.int8).flatten(1)[:, :inputs]


def to_file(name: str, codes: Tensor, scales: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """The tensors of a file that stand for the weight of the layer `name`."""
    return {
        f"{name}.weight_packed": pack(codes, scheme.bits),
        f"{name}.weight_scale": scales,
        f"{name}.weight_shape": torch.tensor(codes.shape),
    }


def is_part(name: str, tensors: Any) -> bool:
    """True for a scale or a shape that belongs to packed words of the same open file."""
    stem, _, last = name.rpartition(".")
    return last in ("weight_scale", "weight_shape") and f"{stem}.weight_packed" in set(tensors.keys())


def read_shape(file: Path, tensors: Any, name: str) -> tuple[int, int]:
    """The shape of the weight whose words are `name`, of an open file.

    Raises: InputError if words, scales and shape do not fit together.
    """
    stem = name.removesuffix("_packed")
    parts = {
        last: tensors.get_slice(f"{stem}_{last}")
        for last in _PARTS
        if f"{stem}_{last}" in set(tensors.keys())
    }
    kinds = {last: (part.get_dtype(), len(part.get_shape())) for last, part in parts.items()}
    is_known = kinds.pop("scale", None) in [(kind, 2) for kind in ("F64", "F32", "F16", "BF16")]
    if (
        is_known
        and kinds == {"packed": ("I32", 2), "shape": ("I64", 1)}
        and parts["shape"].get_shape() == [2]
    ):
        outputs, inputs = tensors.get_tensor(f"{stem}_shape").tolist()
        (rows, width), (others, groups) = (parts[last].get_shape() for last in ("packed", "scale"))
        is_wide = width in [-(-inputs * bits // _WORD) for bits in (4, 8)]
        if is_wide and rows == others == outputs and 0 < groups <= inputs and inputs % groups == 0:
            return outputs, inputs
    raise InputError(f"{file}: {name} does not fit its scales and its shape; copy the model again")


def read_weight(file: Path, tensors: Any, name: str) -> Tensor:
    """The weight whose words are `name`, decoded. Raises: as `read_shape`."""
    _, inputs = read_shape(file, tensors, name)
    stem, words = name.removesuffix("_packed"), tensors.get_tensor(name)
    bits = 4 if words.shape[1] == -(-inputs * 4 // _WORD) else 8
    return decode(unpack(words, bits, inputs), tensors.get_tensor(f"{stem}_scale"))


def _by_group(weight: Tensor, scheme: Scheme) -> Tensor:
    """(out, in) as (out, groups, inputs of a group)."""
    return weight.reshape(len(weight), -1, scheme.size(weight.shape[1]))
