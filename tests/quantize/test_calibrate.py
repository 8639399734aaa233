"""Calibration: which layers are found in each family, their sums of squares, and weights as readers have them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from etude.export import load_model
from etude.models.compressed import Scheme, decode
from etude.quantize.calibrate import layers_of_blocks, put_weight, quantize_layers, summing_squares
from tests.bases import write_encoder, write_llama, write_t5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return load_model(write_llama(tmp_path_factory.mktemp("llama")), dtype=torch.float32)


def test_layers_are_those_of_the_blocks_in_each_family(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "t5").mkdir()
    (tmp_path / "roberta").mkdir()
    t5 = load_model(write_t5(tmp_path / "t5"), dtype=torch.float32)
    masked = write_encoder(tmp_path / "roberta", masked=True)
    roberta = load_model(masked, dtype=torch.float32, objective="masked")
    counts = {len(layers) for layers in layers_of_blocks(model)}
    assert counts == {7} and len(layers_of_blocks(model)) == 2
    assert [len(layers) for layers in layers_of_blocks(t5)] == [6, 6, 10, 10]
    assert [len(layers) for layers in layers_of_blocks(roberta)] == [6, 6]
    every = [name for some in (model, t5, roberta) for layers in layers_of_blocks(some) for name in layers]
    assert not any("head" in name or "embed" in name for name in every)


def test_squares_are_summed_over_all_inputs() -> None:
    layer = nn.Sequential(nn.Linear(3, 2))
    x, y = torch.randn(2, 4, 3), torch.randn(1, 5, 3)
    with summing_squares(layer, ["0"]) as sums:
        layer(x)
        layer(y)
    flat = torch.cat([x.flatten(0, 1), y.flatten(0, 1)])
    torch.testing.assert_close(sums["0"], flat.T @ flat)
    with summing_squares(layer, ["0"]) as later:
        pass
    layer(x)
    assert not later


def test_a_model_computes_with_what_is_read_back(model: nn.Module) -> None:
    scheme, names = Scheme(4, 32), [name for block in layers_of_blocks(model) for name in block]
    tokens = torch.arange(5, 45).reshape(2, 20)
    layers = quantize_layers(
        model,
        scheme,
        dict.fromkeys(names, torch.bfloat16),
        lambda: model.logits(tokens),  # type: ignore[operator]
    )
    assert list(layers) == names
    for name, layer in layers.items():
        assert layer.scales.dtype == torch.bfloat16
        weight = model.get_parameter(f"{name}.weight")
        assert torch.equal(weight, decode(layer.codes, layer.scales).float())
        assert not torch.equal(weight, layer.original)
        put_weight(model, name, layer.original)
