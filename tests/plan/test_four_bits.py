"""A base of 4 bits takes the memory in a trace that it takes in a step."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from etude.engine.precision import has_native_bf16
from etude.objectives.causal import Causal
from etude.plan.memory import Subject, estimate_memory

from .steps import CPU, LORA, RECOMPUTED, decoder, measured_peak, recipe_of, rows, subject

QUANTIZED: dict[str, Any] = {**LORA, "model": {"from": "none", "quantize": "nf4"}}
WIDE = decoder(n_embd=256, n_ffn=512, n_head=4, n_kv_head=4, head_dim=64, tied=False)


# So many rows that a step takes more than the making of its model.
def case_of(recipe: dict[str, Any], **values: Any) -> Subject:
    return subject(recipe_of(**recipe), WIDE, Causal(), rows(8, 128), **values)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_base_of_4_bits_holds_a_quarter_of_one_in_bf16(device: str) -> None:
    whole, small = (
        estimate_memory(case_of(recipe, device=torch.device(device), precision="bf16"))
        for recipe in (LORA, QUANTIZED)
    )
    numbers = 3 * (4 * 256 * 256 + 3 * 256 * 512)
    scales = numbers / 64 * (1 + 4 / 256)
    # Each of 21 layers has three tensors, which a GPU rounds up.
    rounding = 21 * 3 * 512 if device == "cuda" else 0
    saved = whole.parts["weights"] - small.parts["weights"]
    assert saved == pytest.approx(numbers * (2 - 0.5) - scales, abs=max(rounding, 21 * 4))
    assert small.parts["optimizer state"] == whole.parts["optimizer state"]
    for part in ("saved activations", "logits and loss"):
        assert small.parts.get(part, 0) <= 1.01 * whole.parts[part]
    assert small.peak < whole.peak


@pytest.mark.parametrize("target", ["all-linear", ["q_proj"]])
@pytest.mark.parametrize("changes", [{}, RECOMPUTED])
def test_the_peak_is_that_of_a_step(target: Any, changes: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    adapter = {"adapter": {"rank": 4, "targets": target}}
    case = case_of({**QUANTIZED, **adapter, **changes})
    assert estimate_memory(case).peak == pytest.approx(measured_peak(case), rel=0.01)
    if has_native_bf16(CPU):
        case = replace(case, precision="bf16")
        assert 0.99 * measured_peak(case) < estimate_memory(case).peak < 1.03 * measured_peak(case)
