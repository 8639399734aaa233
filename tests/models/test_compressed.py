"""Packed weights: the layout bit by bit, what readers compute from it, and files that do not fit together."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models import compressed, weights
from etude.models.compressed import Scheme


def words_of(row: list[int], bits: int) -> list[int]:
    """Words of one row, as the layout says: a stream of bits, the first code in the lowest, words of 32."""
    stream = sum((code + (1 << (bits - 1))) << (bits * place) for place, code in enumerate(row))
    words = [(stream >> (32 * place)) & 0xFFFFFFFF for place in range(-(-len(row) * bits // 32))]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in words]


@given(st.sampled_from([4, 8]), st.integers(1, 3), st.integers(1, 21), st.randoms())
def test_words_are_a_stream_of_bits_and_come_back(bits: int, rows: int, inputs: int, draw: Any) -> None:
    half = 1 << (bits - 1)
    codes = [[draw.randint(-half, half - 1) for _ in range(inputs)] for _ in range(rows)]
    words = compressed.pack(torch.tensor(codes, dtype=torch.int8), bits)
    assert words.tolist() == [words_of(row, bits) for row in codes]
    assert compressed.unpack(words, bits, inputs).tolist() == codes


@pytest.mark.parametrize(("bits", "group"), list(itertools.product((4, 8), (None, 8))))
def test_a_weight_is_off_by_half_a_scale_at_most_or_is_cut(bits: int, group: int | None) -> None:
    weight, scheme = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)), Scheme(bits, group)
    scales = compressed.choose_scales(weight, scheme, torch.float32)
    codes = compressed.encode(weight, scales, scheme)
    decoded = compressed.decode(codes, scales)
    each = scales.repeat_interleave(scheme.size(32), dim=1)
    cut = (codes == scheme.lowest) | (codes == scheme.highest)
    assert scales.shape == (5, 32 // scheme.size(32))
    assert ((decoded - weight).abs() <= 0.5001 * each)[~cut].all()
    if bits == 8:
        assert ((decoded - weight).abs() <= 0.5001 * each).all()


def test_scales_of_four_bits_err_less_than_those_that_reach_to_the_largest() -> None:
    weight, scheme = torch.randn(64, 64, generator=torch.Generator().manual_seed(2)), Scheme(4, 32)
    widest = weight.view(64, 2, 32).abs().amax(-1) / 7.5
    errors = [
        (compressed.decode(compressed.encode(weight, scales, scheme), scales) - weight).square().sum()
        for scales in (compressed.choose_scales(weight, scheme, torch.float32), widest)
    ]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_zeros_stays_zero(dtype: torch.dtype) -> None:
    scheme = Scheme(4, 8)
    scales = compressed.choose_scales(torch.zeros(2, 16), scheme, dtype)
    assert not compressed.decode(compressed.encode(torch.zeros(2, 16), scales, scheme), scales).any()


def write(folder: Path) -> dict[str, torch.Tensor]:
    scheme, weight = Scheme(4, 8), torch.randn(6, 24)
    scales = compressed.choose_scales(weight, scheme, torch.float32)
    tensors = compressed.to_file("a.b", compressed.encode(weight, scales, scheme), scales, scheme)
    save_file(tensors | {"norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return {"a.b.weight": compressed.decode(compressed.encode(weight, scales, scheme), scales)}


def test_a_folder_is_read_as_if_it_held_the_weights(tmp_path: Path) -> None:
    expected = write(tmp_path)
    assert weights.tensor_shapes(tmp_path) == {"a.b.weight": (6, 24), "norm.weight": (3,)}
    read = dict(weights.read_weights(tmp_path))
    assert read.keys() == {"a.b.weight", "norm.weight"}
    assert torch.equal(read["a.b.weight"], expected["a.b.weight"])


def test_a_weight_takes_the_bytes_that_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    held = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("a.b."))
    assert held == Scheme(4, 8).stored_bytes(6, 24, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_shape", torch.tensor([6, 25])),
        ("weight_shape", torch.tensor([7, 24])),
        ("weight_shape", torch.tensor([6, -24])),
        ("weight_shape", torch.tensor([24])),
        ("weight_shape", torch.tensor([6.0, float("nan")])),
        ("weight_scale", torch.ones(6, 3, dtype=torch.int32)),
        ("weight_scale", torch.ones(6, 5)),
        ("weight_scale", torch.ones(6)),
        ("weight_packed", torch.zeros(6, 4, dtype=torch.int32)),
        ("weight_packed", torch.zeros(6, 3, dtype=torch.int64)),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {f"a.b.{name}": value}
    save_file(tensors, tmp_path / "model.safetensors")
    for read in (weights.tensor_shapes, lambda path: list(weights.read_weights(path))):
        with pytest.raises(InputError, match=r"a\.b\.weight_packed does not fit its scales"):
            read(tmp_path)


def test_a_scheme_is_read_as_it_was_written_and_others_are_refused() -> None:
    for scheme in (Scheme(4, 128), Scheme(8)):
        assert compressed.read_scheme(Path(), scheme.to_config([])) == scheme
    others: list[Any] = [None, [], {"quant_method": "gptq"}, {"config_groups": {"a": 1}}]
    for key, value in {"num_bits": 3, "symmetric": False, "type": "float", "group_size": True}.items():
        config = Scheme(4, 128).to_config([])
        config["config_groups"]["group_0"]["weights"][key] = value
        others.append(config)
    for other in others:
        with pytest.raises(InputError, match="give the model they were made of"):
            compressed.read_scheme(Path(), other)


def test_the_package_reads_what_is_packed() -> None:
    pytest.importorskip("compressed_tensors", reason="the oracle is installed by hand")
    from compressed_tensors.compressors.pack_quantized import pack_to_int32, unpack_from_int32

    for bits in (4, 8):
        half = 1 << (bits - 1)
        codes = torch.randint(-half, half, (7, 40), dtype=torch.int8)
        words = compressed.pack(codes, bits)
        assert torch.equal(words, pack_to_int32(codes, bits))
        assert torch.equal(unpack_from_int32(words, bits, codes.shape), codes)
