"""A decoder as a GGUF file: its sizes as metadata, its tensors under their names there, written and read.

Shapes: weights (out, in) as in safetensors. Llama's queries and keys have their rows in another order: the
two halves of a head, which turn together, alternate.

Source: github.com/ggml-org/ggml, docs/gguf.md; the package gguf.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.errors import InputError
from etude.models.decoder_config import DecoderConfig
from etude.models.rope import inverse_frequencies
from etude.quantize.gguf_types import FILE_TYPES, Format, choose_format

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # by model_type
_ROPE_FACTORS = "rope_freqs.weight"
_LARGEST_F16 = 65504.0
_MATRIX_FORMATS_OF_LIBGGUF = ("Q4_K", "Q5_K", "Q6_K")


def import_gguf(form: str) -> Any:
    """The package gguf. Raises: InputError if it, or the one that makes K-quants, is not installed."""
    try:
        import gguf

        if "_K" in form:
            import libgguf  # noqa: F401
    except ImportError as error:
        advice = 'pip install "etude-workbench[gguf]"'
        raise InputError(f"--to gguf needs the package {error.name}; {advice}") from None
    return gguf


@dataclass(frozen=True)
class Decoder:
    """A decoder as GGUF describes it: architecture, sizes, and the names of its tensors there by their own.

    Raises: InputError if GGUF has no such model.
    """

    architecture: str
    config: DecoderConfig
    names: Mapping[str, str]

    @classmethod
    def of(cls, values: Mapping[str, Any], tensors: list[str]) -> "Decoder":
        """The description of a model with these values of config.json and these tensors."""
        import gguf

        kind = str(values.get("model_type"))
        architecture = ARCHITECTURES.get(kind)
        if architecture is None:
            known = ", ".join(ARCHITECTURES)
            raise InputError(f"--to gguf is for decoders ({known}), not for {kind[:40]}; use --to int8 or hf")
        config = DecoderConfig.from_hf(values)
        _require_known(kind, config)
        number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
        known_names = gguf.get_tensor_name_map(number, config.n_layer)
        names = {name: known_names.get_name(name, try_suffixes=(".weight", ".bias")) for name in tensors}
        if unknown := [name for name, found in names.items() if found is None]:
            raise InputError(f"GGUF has no name for {unknown[0]} of this model; use --to hf")
        return cls(architecture, config, {name: str(found) for name, found in names.items()})

    @property
    def untold_head_dim(self) -> int | None:
        """The numbers of a head, where transformers' reader (5.23) does not take them from the file."""
        usual = {"qwen3": 128, "qwen2": self.config.n_embd // self.config.n_head}.get(self.architecture)
        return None if usual in (None, self.config.head_dim) else self.config.head_dim

    def formats(self, form: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Format]:
        """The format of each tensor by its name in GGUF. shapes: by their own names."""
        is_tied = "output.weight" not in self.names.values()
        return {
            self.names[name]: choose_format(
                form, self.names[name], shape, n_layer=self.config.n_layer, is_tied=is_tied
            )
            for name, shape in shapes.items()
        }

    def reorder(self, name: str, tensor: Tensor, *, back: bool = False) -> Tensor:
        """A tensor with its rows in the order of GGUF, or back; `name` is that of GGUF."""
        part = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
        if self.architecture != "llama" or part is None:
            return tensor
        heads = self.config.n_head if part[1] == "q" else self.config.n_kv_head
        pairs = (-1, 2) if back else (2, -1)
        return tensor.reshape(heads, *pairs, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def gguf_pieces(
    decoder: Decoder, form: str, tensors: Mapping[str, Tensor], about: Callable[[Any], None]
) -> Iterator[bytes | memoryview]:
    """The bytes of a GGUF file, piece by piece; each tensor is quantised as its turn comes.

    tensors: by their own names. about: adds name, tokenizer and chat template to a GGUFWriter.

    Raises: InputError if a number is too large for F16.
    """
    gguf = import_gguf(form)
    formats = decoder.formats(form, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    writer = gguf.GGUFWriter(None, decoder.architecture)
    about(writer)
    _add_sizes(writer, decoder.config)
    writer.add_file_type(FILE_TYPES[form])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    given = {decoder.names[name]: tensor for name, tensor in tensors.items()}
    if (factors := _rope_factors(decoder.config)) is not None:
        given[_ROPE_FACTORS], formats[_ROPE_FACTORS] = factors, Format("F32", "F32")
    for name, tensor in given.items():
        kind = gguf.GGMLQuantizationType[formats[name].name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(
            name, tuple(tensor.shape), np.dtype(np.float32), tensor.numel() // block * size, kind
        )
    head = io.BytesIO()
    writer.fout, writer.state = [head], gguf.gguf_writer.WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    yield _padded(head.getvalue(), writer.data_alignment)
    for name, tensor in given.items():
        numbers = decoder.reorder(name, tensor).float().contiguous().numpy()
        yield _padded(_encode(name, numbers, formats[name].name), writer.data_alignment)


def read_gguf(path: Path, decoder: Decoder) -> dict[str, Tensor]:
    """The tensors of a file that `gguf_pieces` wrote, as fp32 under their own names."""
    import gguf

    own = {name: mine for mine, name in decoder.names.items()}
    read: dict[str, Tensor] = {}
    for part in gguf.GGUFReader(path).tensors:
        if part.name in own:
            numbers = torch.from_numpy(np.array(gguf.dequantize(part.data, part.tensor_type), np.float32))
            shape = [int(size) for size in reversed(part.shape)]
            read[own[part.name]] = decoder.reorder(part.name, numbers.reshape(shape), back=True)
    return read


def _require_known(kind: str, config: DecoderConfig) -> None:
    """Raises: InputError for what llama.cpp does not compute in these architectures."""
    wrong = None
    if config.sliding_window is not None and config.sliding_window < config.longest:
        wrong = f"sees {config.sliding_window:,} tokens at a time of {config.longest:,}"
    if kind == "qwen3" and config.qkv_bias:
        wrong = "has biases in its attention"
    if config.rope_scaling and not config.rope_scaling.truncate:
        wrong = "has YaRN without truncate"
    if wrong:
        raise InputError(f"this {kind} {wrong}, which llama.cpp does not compute; use --to hf or merged")


def _add_sizes(writer: Any, config: DecoderConfig) -> None:
    writer.add_context_length(config.longest)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_ffn)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "llama3":  # the latter is in the factors
        return
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original_context)
        # llama.cpp multiplies by the usual growth itself.
        usual = 0.1 * float(np.log(scaling.factor)) + 1.0
        writer.add_rope_scaling_yarn_attn_factor(scaling.attention_factor / usual)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def _rope_factors(config: DecoderConfig) -> Tensor | None:
    """The divisors of the frequencies of Llama 3, (head_dim / 2,)."""
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return None
    plain, scaled = (
        inverse_frequencies(config.head_dim, config.rope_theta, scaling)
        for scaling in (None, config.rope_scaling)
    )
    return plain / scaled


def _encode(name: str, numbers: Any, kind: str) -> bytes:
    if kind in _MATRIX_FORMATS_OF_LIBGGUF:
        import libgguf

        return bytes(libgguf.quantize_rows(numbers, libgguf.GGMLQuantizationType[kind]).tobytes())
    import gguf

    if kind == "F16" and np.abs(numbers).max(initial=0) > _LARGEST_F16:
        raise InputError(f"{name} has numbers above {_LARGEST_F16:,.0f}, the largest of F16; use --to hf")
    return bytes(gguf.quantize(numbers, gguf.GGMLQuantizationType[kind]).tobytes())


def _padded(content: bytes, alignment: int) -> bytes:
    return content + bytes(-len(content) % alignment)
