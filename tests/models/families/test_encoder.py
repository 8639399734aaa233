"""Pretrained encoders against transformers."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from etude.models.encoder_config import EncoderConfig
from etude.models.pretrained import inspect_model, load_pretrained
from tests import bases
from tests.models.encoders import masked_logits


def test_a_head_with_its_bias_under_the_other_name_alone_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    base = bases.write_encoder(tmp_path / "base", masked=True)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.decoder.bias"] = torch.randn_like(tensors.pop("lm_head.bias"))
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    found = inspect_model(base, "masked")
    assert isinstance(found.config, EncoderConfig)
    ours, new = load_pretrained(found, dtype=torch.float32, dropout=0.0, seed=1)
    tokens = torch.tensor([[5, 6, 7, 8]])
    theirs: Any = AutoModelForMaskedLM.from_pretrained(base).eval()
    with torch.no_grad():
        expected, said = theirs(tokens).logits, masked_logits(ours.eval(), ours(tokens))
    torch.testing.assert_close(said, expected, atol=2e-5, rtol=1e-4)
    assert new == []
