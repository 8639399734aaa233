"""Counts against the modules themselves, published totals and torch's own counter."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from etude.models.cost import count_parameters, flops_per_token
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig

TINY = DecoderConfig(
    vocab_size=96, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_ffn=80, head_dim=16, context=64, tied=False
)


@pytest.mark.parametrize(
    ("n_embd", "n_layer", "n_head", "n_kv_head", "n_ffn", "vocab_size", "tied", "qkv_bias", "total"),
    [
        pytest.param(896, 24, 14, 2, 4864, 151936, True, True, 494_032_768, id="Qwen2.5-Coder-0.5B"),
        pytest.param(1536, 28, 12, 2, 8960, 151936, True, True, 1_543_714_304, id="Qwen2.5-Coder-1.5B"),
        pytest.param(2048, 36, 16, 2, 11008, 151936, True, True, 3_085_938_688, id="Qwen2.5-Coder-3B"),
        pytest.param(3584, 28, 28, 4, 18944, 152064, False, True, 7_615_616_512, id="Qwen2.5-Coder-7B"),
        pytest.param(2048, 16, 32, 8, 8192, 128256, True, False, 1_235_814_400, id="Llama-3.2-1B"),
        pytest.param(576, 30, 9, 3, 1536, 49152, True, False, 134_515_008, id="SmolLM2-135M"),
        pytest.param(960, 32, 15, 5, 2560, 49152, True, False, 361_821_120, id="SmolLM2-360M"),
    ],
)
def test_published_models_have_their_published_size(
    n_embd: int, n_layer: int, n_head: int, n_kv_head: int, n_ffn: int, vocab_size: int, tied: bool,
    qkv_bias: bool, total: int,
) -> None:  # fmt: skip
    config = DecoderConfig(
        vocab_size, n_layer, n_head, n_kv_head, n_embd, n_ffn, n_embd // n_head, 2048, tied, qkv_bias=qkv_bias
    )
    assert count_parameters(config)["total"] == total == _count_on_meta(config)


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"qk_norm": True}, {"qkv_bias": True}])
def test_parts_are_those_of_the_modules(changes: dict[str, bool]) -> None:
    config = replace(TINY, **changes)  # type: ignore[arg-type]
    parts = count_parameters(config)
    assert parts["total"] == _count_on_meta(config)
    named = [(name, parameter.numel()) for name, parameter in Decoder(config).named_parameters()]
    assert parts["norms"] == sum(count for name, count in named if name.endswith("norm.weight"))
    assert parts["feed_forward"] == sum(count for name, count in named if "mlp" in name)
    assert parts["attention"] == sum(
        count for name, count in named if "_proj" in name and "self_attn" in name
    )


def test_flops_agree_with_torchs_counter() -> None:
    T = 48
    model = Decoder(TINY)
    model.init_weights(0)
    tokens = torch.zeros(1, T, dtype=torch.int64)
    # With a mask and MATH attention the counter sees whole products; ours counts the causal half of those.
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model.logits(tokens).sum().backward()
    upper_half = 12 * TINY.n_layer * TINY.n_head * TINY.head_dim * T / 2
    assert counter.get_total_flops() / T == flops_per_token(TINY, T) + upper_half


def test_a_sliding_window_attends_to_fewer_tokens() -> None:
    exact = [min(position + 0.5, 8 if position >= 8 else position + 0.5) for position in range(32)]
    per_token = 12 * TINY.n_layer * TINY.n_head * TINY.head_dim
    matrices = flops_per_token(TINY, 32) - per_token * 16
    assert flops_per_token(replace(TINY, sliding_window=8), 32) == matrices + per_token * sum(exact) / 32
    assert flops_per_token(replace(TINY, sliding_window=64), 32) == flops_per_token(TINY, 32)


def _count_on_meta(config: DecoderConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())
