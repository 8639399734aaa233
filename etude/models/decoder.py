"""A decoder-only transformer that is Qwen3, Qwen2, Mistral or Llama by configuration.

Each block adds to the residual stream x:  x += attention(norm(x)),  x += feed_forward(norm(x)).
The modules carry the names of transformers, so `state_dict()` is what its classes load.

B samples, T tokens of this call, S tokens with the cached ones before them, C n_embd, F n_ffn,
H heads (n_head, or n_kv_head for keys and values), D head_dim, V vocab_size
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from etude.models.config import DecoderConfig


@dataclass
class Cache:
    """Rotated keys and values (B, H, S, D) of the tokens seen so far, for each block."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.keys[0].shape[2] if self.keys else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the (B, H, T, D) keys and values of one block; returns all of them, (B, H, S, D)."""
        if layer in self.keys:
            keys = torch.cat((self.keys[layer], keys), dim=2)
            values = torch.cat((self.values[layer], values), dim=2)
        self.keys[layer], self.values[layer] = keys, values
        return keys, values


class Decoder(nn.Module):
    """A causal language model; its weights mean something after `init_weights` or `load_state_dict`.

    `checkpoint_activations`: keep only the input of each block while training and compute the rest again for the
    gradients, with the same dropout.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.model = Trunk(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C) after the final norm, of tokens (B, T) int64.

        positions: (B, T) int, by default counted from the first cached token.
        documents: (B, S) int; tokens attend only within equal ids. Without it (the fast path) to all before them.
        cache: holds the S - T tokens before these, and afterwards these too.
        """
        T, past = tokens.shape[1], 0 if cache is None else cache.length
        if positions is None:
            positions = torch.arange(past, past + T, device=tokens.device)[None]
        rotary = _rotary_tables(positions, self.config)
        mask = _attention_mask(T, past, self.config.sliding_window, documents, tokens.device)
        x = functional.dropout(self.model.embed_tokens(tokens), self.config.dropout, self.training)
        for block in self.model.layers:
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, rotary, mask, use_reentrant=False, preserve_rng_state=True)
            else:
                x = block(x, rotary, mask, cache)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def head_weight(self) -> Tensor:
        """The (V, C) matrix that turns hidden states into logits; the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.config.tied else self.lm_head.weight

    def logits(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the next token at every position; arguments as for `forward`."""
        hidden = self(tokens, positions=positions, documents=documents, cache=cache)
        return functional.linear(hidden, self.head_weight())

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw new weights, the same on every device: normal with std 0.02, norms 1, biases 0.

        Matrices that write into the residual stream are zero with `zero_init`, else std 0.02 / sqrt(2 n_layer).

        Source: GPT-2 (Radford et al. 2019) for the scaling by depth.
        """
        generator = torch.Generator().manual_seed(seed)
        depth_scale = 0.0 if self.config.zero_init else 1 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                std = 0.02 * (depth_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0)
                drawn = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
                parameter.copy_(drawn.normal_(std=std, generator=generator) if std else drawn.zero_())


class Trunk(nn.Module):
    """Embedding, blocks and final norm, under the name that transformers gives them; `Decoder.forward` runs them."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)


class Block(nn.Module):
    """Attention and feed-forward, each on the normed residual stream and added to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        attended = self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        x = x + functional.dropout(attended, self.dropout, self.training)
        return x + functional.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Attention(nn.Module):
    """Causal attention in which groups of query heads share a key and value head.

    Source: grouped queries, arXiv:2305.13245; norm of queries and keys, arXiv:2302.05442.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.dropout = layer, config.head_dim, config.dropout
        self.groups = config.n_head // config.n_kv_head
        query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q_proj = nn.Linear(config.n_embd, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.n_embd, key_value, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.n_embd, key_value, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.n_embd, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); mask: (1 or B, 1, T, S) bool, true where a token may look; None is plain causal."""
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (_rotate(heads, rotary).type_as(v) for heads in (self.q_norm(q), self.k_norm(k)))
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))  # (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        if mask is not None and self.groups > 1:
            # CUDA's kernels for masks want equal heads; those without a mask share them.
            k, v = (heads.repeat_interleave(self.groups, dim=1) for heads in (k, v))
        attended = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and q.shape[2] > 1,
            enable_gqa=k.shape[1] != q.shape[1],
        )
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: arXiv:2002.05202."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.n_ffn, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.n_ffn, bias=False)
        self.down_proj = nn.Linear(config.n_ffn, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C) through (B, T, F)."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, statistics in fp32. Source: arXiv:1910.07467."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape (..., width) to the same, in the dtype of the weight."""
        x = x.type_as(self.weight)  # under autocast queries and keys arrive in half precision
        if x.device.type != "cpu":
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        # There is no fused kernel on CPU, and this takes fewer passes over memory: a training step of 4 blocks of width
        # 320 with QK-norm takes 1.40 s instead of 1.58 (medians, 2 cores, torch 2.13).
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square() / x.shape[-1]
        normed: Tensor = (x * (mean_square + self.eps).rsqrt()).type_as(x)
        return normed * self.weight


def _rotary_tables(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of the rotary angles, (B, T, 1, D) fp32 each, for positions (B, T).

    Dimension i is paired with i + D/2 and turned by position / theta^(2i/D). Source: arXiv:2104.09864, in the
    layout of transformers.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    angles = (positions[..., None].float() * (1.0 / config.rope_theta**exponents))[..., None, :]  # (B, T, 1, D/2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the heads (B, T, H, D) to their positions; the result is fp32."""
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def _attention_mask(
    T: int, past: int, window: int | None, documents: Tensor | None, device: torch.device
) -> Tensor | None:
    """Where the last T of S = past + T tokens may look, (1 or B, 1, T, S) bool; None where plain causal says it."""
    S = past + T
    sliding = window is not None and window < S
    if documents is None and not sliding and (past == 0 or T == 1):
        return None
    queries, keys = torch.arange(past, S, device=device)[:, None], torch.arange(S, device=device)[None]
    mask = (keys <= queries)[None, None]
    if window is not None:
        mask = mask & (keys > queries - window)
    if documents is not None:
        mask = mask & (documents[:, None, past:, None] == documents[:, None, None, :])
    return mask
