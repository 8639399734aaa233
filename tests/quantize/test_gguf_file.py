"""Tensors and sizes in a GGUF file, held against the package gguf and arithmetic."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.errors import InputError
from etude.models.decoder import Decoder as Model
from etude.models.decoder_config import DecoderConfig, RopeScaling
from etude.models.rope import inverse_frequencies
from etude.quantize.gguf_file import Decoder, gguf_pieces, read_gguf

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
SIZES = DecoderConfig(
    vocab_size=96, n_layer=2, n_head=4, n_kv_head=2, n_embd=256, n_ffn=512, head_dim=64, context=128
)


def described(config: DecoderConfig = SIZES) -> tuple[Decoder, dict[str, Tensor]]:
    torch.manual_seed(0)
    tensors = {name: torch.randn_like(each) for name, each in Model(config).state_dict().items()}
    tensors.pop("lm_head.weight", None)
    return Decoder.of(config.to_hf(eos_id=0), list(tensors)), tensors


def written(path: Path, form: str, decoder: Decoder, tensors: dict[str, Tensor]) -> Any:
    path.write_bytes(b"".join(gguf_pieces(decoder, form, tensors, lambda writer: writer.add_name("a name"))))
    return gguf.GGUFReader(path)


@pytest.mark.parametrize("form", ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
def test_tensors_come_back_as_near_as_their_format_holds_them(form: str, tmp_path: Path) -> None:
    decoder, tensors = described()
    reader = written(tmp_path / "a.gguf", form, decoder, tensors)
    formats = decoder.formats(form, {name: tuple(each.shape) for name, each in tensors.items()})
    assert {part.name: part.tensor_type.name for part in reader.tensors} == {
        name: each.name for name, each in formats.items()
    }
    most = {"F32": 0, "F16": 5e-4, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_K": 0.05, "Q4_K": 0.1}
    read = read_gguf(tmp_path / "a.gguf", decoder)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        error = float((read[name] - tensor).norm() / tensor.norm())
        assert error <= most[formats[decoder.names[name]].name], name


def test_a_file_has_the_size_of_the_arithmetic(tmp_path: Path) -> None:
    decoder, tensors = described()
    reader = written(tmp_path / "a.gguf", "Q8_0", decoder, tensors)
    matrices = sum(each.numel() for each in tensors.values() if each.ndim == 2)
    vectors = sum(each.numel() for each in tensors.values() if each.ndim == 1)
    assert matrices % 32 == 0
    size = (tmp_path / "a.gguf").stat().st_size
    assert size - reader.data_offset == matrices // 32 * 34 + vectors * 4  # each is a multiple of 32 bytes


def test_queries_and_keys_of_a_llama_alternate_the_halves_of_a_head() -> None:
    decoder, _ = described()
    assert decoder.architecture == "llama"
    rows = torch.arange(256.0).reshape(-1, 1)
    found = decoder.reorder("blk.0.attn_q.weight", rows)
    assert found[:4, 0].tolist() == [0, 32, 1, 33]  # heads of 64
    assert torch.equal(decoder.reorder("blk.0.attn_q.weight", found, back=True), rows)
    keys = torch.arange(128.0)
    assert decoder.reorder("blk.1.attn_k.bias", keys)[:3].tolist() == [0, 32, 1]
    assert torch.equal(decoder.reorder("blk.0.attn_v.weight", rows), rows)
    qwen, _ = described(replace(SIZES, qk_norm=True))
    assert torch.equal(qwen.reorder("blk.0.attn_q.weight", rows), rows)


def test_sizes_stand_in_the_metadata(tmp_path: Path) -> None:
    decoder, tensors = described(replace(SIZES, qk_norm=True, rope_theta=5e5))
    fields = written(tmp_path / "a.gguf", "F16", decoder, tensors).fields
    found = {name: field.contents() for name, field in fields.items()}
    assert found["general.architecture"] == "qwen3" and found["general.name"] == "a name"
    expected = {
        "context_length": 128, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 64,
        "attention.value_length": 64, "rope.dimension_count": 64, "rope.freq_base": 5e5, "vocab_size": 96,
    }  # fmt: skip
    assert {name: found[f"qwen3.{name}"] for name in expected} == expected
    assert found["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_scaled_rotary_positions_stand_as_llama_cpp_reads_them(tmp_path: Path) -> None:
    decoder, tensors = described()
    yarn = RopeScaling("yarn", 4.0, 64, attention_factor=1.0)
    fields = written(
        tmp_path / "a.gguf", "F16", replace(decoder, config=replace(SIZES, rope_scaling=yarn)), tensors
    ).fields
    assert fields["llama.rope.scaling.type"].contents() == "yarn"
    factor = fields["llama.rope.scaling.yarn_attn_factor"].contents()
    assert factor * (0.1 * np.log(4.0) + 1) == pytest.approx(1.0)  # llama.cpp multiplies by the latter
    llama3 = RopeScaling("llama3", 8.0, 64)
    reader = written(
        tmp_path / "b.gguf", "F16", replace(decoder, config=replace(SIZES, rope_scaling=llama3)), tensors
    )
    (factors,) = [part.data for part in reader.tensors if part.name == "rope_freqs.weight"]
    plain, scaled = (inverse_frequencies(64, SIZES.rope_theta, each) for each in (None, llama3))
    np.testing.assert_allclose(plain.numpy() / factors, scaled.numpy(), rtol=1e-6)
    assert "llama.rope.scaling.type" not in reader.fields


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "gptj"}, "--to gguf is for decoders"),
        ({"model_type": "mistral", "sliding_window": 16}, "sees 16 tokens at a time of 128"),
        ({"model_type": "qwen3", "attention_bias": True}, "has biases in its attention"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(changes: dict[str, Any], says: str) -> None:
    values = SIZES.to_hf(eos_id=0)
    with pytest.raises(InputError, match=says):
        Decoder.of({**values, **changes}, [])


def test_a_tensor_without_a_name_and_numbers_too_large_are_refused() -> None:
    decoder, tensors = described()
    with pytest.raises(InputError, match=r"GGUF has no name for model\.own\.weight"):
        Decoder.of(SIZES.to_hf(eos_id=0), [*tensors, "model.own.weight"])
    tensors["model.embed_tokens.weight"][0, 0] = 7e4
    with pytest.raises(InputError, match="has numbers above 65,504, the largest of F16"):
        list(gguf_pieces(decoder, "F16", tensors, lambda _: None))
