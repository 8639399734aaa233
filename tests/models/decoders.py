"""Decoders with random weights, and the comparison of their logits."""

from dataclasses import replace

import torch
from torch import Tensor

from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig

LLAMA = DecoderConfig(
    vocab_size=97, n_layer=3, n_head=4, n_kv_head=2, n_embd=48, n_ffn=80, head_dim=12, context=64, tied=False
)
CONFIGS = {
    "llama": LLAMA,
    "llama tied": replace(LLAMA, tied=True, n_kv_head=4, norm_eps=1e-5),
    "llama uneven": replace(LLAMA, n_head=5, n_kv_head=1, head_dim=8),
    "mistral": replace(LLAMA, sliding_window=5),
    "qwen2": replace(LLAMA, qkv_bias=True, rope_theta=1e6, tied=True),
    "qwen2 wide heads": replace(LLAMA, qkv_bias=True, head_dim=20),
    "qwen2 sliding": replace(LLAMA, qkv_bias=True, sliding_window=6),
    "qwen2 sliding in some layers": replace(LLAMA, qkv_bias=True, sliding_window=6, full_layers=(0, 2)),
    "qwen3": replace(LLAMA, qk_norm=True, head_dim=16, tied=True),
    "qwen3 sliding": replace(LLAMA, qk_norm=True, sliding_window=7, n_kv_head=1),
    "qwen3 sliding but at the end": replace(LLAMA, qk_norm=True, sliding_window=4, full_layers=(2,)),
}


def random_decoder(config: DecoderConfig) -> Decoder:
    """Weights of a size at which every part moves the logits, norms and biases included."""
    model = Decoder(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def assert_equal_logits(logits: Tensor, expected: Tensor) -> None:
    """The largest difference is under 1e-5 of the largest logit."""
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def random_tokens(config: DecoderConfig, B: int, T: int) -> Tensor:
    return torch.randint(config.vocab_size, (B, T), generator=torch.Generator().manual_seed(1))
