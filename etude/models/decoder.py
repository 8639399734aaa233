"""A decoder-only transformer that is Qwen3, Qwen2, Mistral or Llama by configuration.

Each block adds to the residual stream x:  x += attention(norm(x)),  x += feed_forward(norm(x)).
The modules carry the names of transformers, so `state_dict()` is what its classes load.

B rows, T tokens of this call, S tokens with the cached ones before them, C n_embd, F n_ffn,
H heads (n_head, or n_kv_head for keys and values), D head_dim, V vocab_size
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.attention import attend, attend_behind, attend_each
from etude.models.cache import Cache, Places
from etude.models.cascade import attend_parts
from etude.models.decoder_config import DecoderConfig
from etude.models.fused import rotate, swiglu
from etude.models.layers import RMSNorm, draw, embedding, fill, run_block
from etude.models.packing import Ends, last_states, send
from etude.models.rope import inverse_frequencies
from etude.prefixes import Part, Row

# A last sequence that nobody reads fills a compiled row up to a multiple of these tokens: compiled code meets
# fewer sizes so.
_MULTIPLE = 64


@dataclass(frozen=True)
class Context:
    """The values that all blocks share in one call, but for those of the last one.

    rotary   cosine and signed sine, (B, T, 1, D) fp32 each
    queries  the same of the queries, where these are fewer
    ends     of the sequences that lie end to end in each row, or None: every row is one
    cache    filled by a call with ends, extended by one token a row in a call without
    places   of those tokens
    found    (N,) the place in a row of computed tokens of each token, or None: they are as they were given
    parts    of the attention, where it is computed in parts
    scored   (m,) what a block computes beside keys and values, of the B x T places; None: all
    copies   of the same samples that the rows hold
    """

    rotary: tuple[Tensor, Tensor]
    queries: tuple[Tensor, Tensor] | None = None
    ends: Ends | None = None
    cache: Cache | None = None
    places: Places | None = None
    found: Tensor | None = None
    parts: tuple[Part, ...] = ()
    scored: Tensor | None = None
    copies: int = 1

    @property
    def is_behind(self) -> bool:
        """True where the tokens go on with the one sequence that a cache holds already."""
        return self.cache is not None and self.ends is not None and self.cache.lengths[0] > 0

    def pick(self, x: Tensor) -> Tensor:
        """The places of (B, T, ...) that a block computes beside keys and values, (copies, m, ...)."""
        return x if self.scored is None else pick(x, self.scored, self.copies)


class Decoder(nn.Module):
    """A causal language model; its weights mean something after `init_weights` or `load_state_dict`.

    labels: number of labels of a sample, scored from the state of its last token instead of the next token.
    `checkpoint_activations`: compute blocks again for the gradients, as `run_block` does.
    """

    def __init__(self, config: DecoderConfig, labels: int = 0) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.checkpoint_activations = False
        self.model = Trunk(config)
        if labels:
            self.score = nn.Linear(config.n_embd, labels, bias=False)
        elif not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        lengths: tuple[int, ...] | None = None,
        cache: Cache | None = None,
        reach: int | None = None,
        row: Row[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C) after the final norm, of tokens (B, T) int64.

        positions: (B, T) int, by default 0, 1, 2 ... or, with a cache, what follows. lengths: of the
        sequences that lie end to end in each row of tokens, which do not see each other. cache: with
        `lengths`, an empty one to fill, or one of a single sequence, which the tokens go on with; else T is 1
        and each row goes on where its sequence ended. reach: as for `Places`; positions then say where the
        rows end, and to count cache.lengths is left to the caller.
        row: computes its tokens alone, for each copy of the samples in the rows of tokens; the states are
        those of its targets then, (copies, t, C).
        """
        is_step = cache is not None and not lengths
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            if cache and is_step:
                positions = positions + send(torch.tensor(cache.lengths), tokens.device)[:, None]
        if lengths and cache is None and self.is_compiled and (rest := -tokens.shape[1] % _MULTIPLE):
            tokens, positions = (
                functional.pad(each, (0, rest)) for each in (tokens, positions.expand_as(tokens))
            )
            return self.forward(tokens, positions=positions, lengths=(*lengths, rest))[:, :-rest]
        copies = 1 if row is None else tokens.numel() // row.size
        if row is not None:
            positions = positions.expand_as(tokens)
            if row.places is not None:
                tokens, positions = (pick(each, row.places, copies) for each in (tokens, positions))
        context = Context(
            rotary=rotary_tables(positions, self.config),
            ends=Ends(lengths, len(tokens)) if lengths else None,
            cache=cache,
            places=Places(cache, positions[:, 0], reach) if cache and is_step else None,
            found=row.found if row else None,
            parts=row.parts if row else (),
            copies=copies,
        )
        last = self._of_last_block(context, row) if row is not None and row.scored is not None else context
        # One token of each row is not worth compiling, nor a prompt.
        run = self.model if cache is None else self.model.forward
        hidden: Tensor = run(tokens, context, last, self.checkpoint_activations and self.training)
        if cache is not None and reach is None:
            more = lengths or (1,) * len(cache.lengths)
            cache.lengths = [length + new for length, new in zip(cache.lengths, more)]
        return hidden if row is None or row.targets is None else hidden.index_select(1, row.targets)

    def _of_last_block(self, context: Context, row: Row[Tensor]) -> Context:
        """The context in which only the scored places have queries, where attention in parts allows that."""
        scored = replace(context, scored=row.scored)
        window = self.config.window(self.config.n_layer - 1)
        drops = self.training and self.config.dropout
        if drops or context.rotary[0].device.type != "cpu" or (window is not None and window < row.longest):
            return scored
        cos, sin = (scored.pick(each) for each in context.rotary)
        return replace(scored, queries=(cos, sin), parts=row.last)

    def advance(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Logits (B, V) after the next token (B,) of each row, which the cache then holds too."""
        return self.head(self.forward(tokens[:, None], cache=cache)[:, 0])

    def compile(self, *args: Any, **settings: Any) -> None:
        """Compile all but attention within sequences, whose lengths are others in each batch."""
        for block in self.model.layers:
            block.self_attn.attend_each = torch.compiler.disable(attend_each)  # type: ignore[no-untyped-call, union-attr]
        self.model.compile(*args, **settings)

    @property
    def is_compiled(self) -> bool:
        return self.model._compiled_call_impl is not None

    def head_weight(self) -> Tensor:
        """The (V, C) matrix that turns hidden states into logits; the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.config.tied else self.lm_head.weight

    def classify(self, hidden: Tensor, lengths: tuple[int, ...] | None = None) -> Tensor:
        """Logits (n, labels) of samples from the hidden states that `forward` returns."""
        logits: Tensor = self.score(last_states(hidden, lengths).to(self.score.weight.dtype))
        return logits

    def logits(self, tokens: Tensor, **arguments: Any) -> Tensor:
        """Logits (B, T, V) of the next token at every position; arguments as for `forward`."""
        return self.head(self(tokens, **arguments))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C)."""
        return functional.linear(hidden, self.head_weight().to(hidden.dtype))

    def init_weights(self, seed: int) -> None:
        """Draw new weights."""
        fill(self, self.draw_weights(seed))

    def draw_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """New weights one after another, the same on every device: normal with std 0.02, norms 1, biases 0.

        Matrices that write into the residual stream are 0 with `zero_init`, else std 0.02 / sqrt(2 n_layer).
        Source: GPT-2 (Radford et al. 2019) for the scaling by depth.
        """
        generator = torch.Generator().manual_seed(seed)
        depth_scale = 1 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            if name.endswith("norm.weight"):
                yield name, torch.ones(parameter.shape)
            elif name.endswith("bias") or (writes and self.config.zero_init):
                yield name, torch.zeros(parameter.shape)
            else:
                yield name, draw(parameter.shape, 0.02 * (depth_scale if writes else 1.0), generator)


class Trunk(nn.Module):
    """Embedding, blocks and final norm, under the names of transformers."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = embedding(config.vocab_size, config.n_embd)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)
        self.dropout = config.dropout

    def forward(self, tokens: Tensor, context: Context, last: Context, recompute: bool) -> Tensor:
        """Hidden states (B, T, C) of tokens (B, T); last: the context of the last block."""
        x = self.embed_tokens(tokens).to(self.norm.weight.dtype)
        x = functional.dropout(x, self.dropout, self.training)
        for block in self.layers:
            is_last = block is self.layers[-1]
            x = run_block(block, x, last if is_last else context, recompute=recompute)
        hidden: Tensor = self.norm(x)
        return hidden


class Block(nn.Module):
    """Attention and feed-forward, each on the normed residual stream and added to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, T, C) to (B, T, C), or to (copies, m, C) of the scored places."""
        attended = self.self_attn(self.input_layernorm(x), context)
        x = context.pick(x) + functional.dropout(attended, self.dropout, self.training)
        return x + functional.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Attention(nn.Module):
    """Causal attention in which groups of query heads share a key and value head.

    Source: grouped queries, arXiv:2305.13245; norm of queries and keys, arXiv:2302.05442.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.dropout = layer, config.head_dim, config.dropout
        self.window = config.window(layer)
        self.attend_each = attend_each
        query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q_proj = nn.Linear(config.n_embd, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.n_embd, key_value, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.n_embd, key_value, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.n_embd, bias=config.out_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, T, C) to (B, T, C), or to (copies, m, C) of the scored places."""
        given = (x if context.queries is None else context.pick(x), x, x)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (project(of).unflatten(-1, (-1, self.head_dim)) for project, of in zip(projections, given))
        q = rotate(self.q_norm(q), context.queries or context.rotary, v.dtype)
        k = rotate(self.k_norm(k), context.rotary, v.dtype)
        if context.is_behind and context.cache is not None:
            k, v = context.cache.append(self.layer, k, v)
            behind: Tensor = self.o_proj(attend_behind(q, k, v).flatten(2))
            return behind
        if context.cache is not None and context.ends is not None:
            kept = (k, v) if context.found is None else (k[:, context.found], v[:, context.found])
            context.cache.fill(self.layer, context.ends.lengths, *kept)
        attended = self.attend(q, k, v, context)
        if context.queries is None:
            attended = context.pick(attended)
        out: Tensor = self.o_proj(attended.flatten(2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """Attention of the heads of queries, as the context has it; returns (B, T, H, D)."""
        if context.parts:
            k, v = (heads.reshape(context.copies, -1, *heads.shape[2:]) for heads in (k, v))
            return attend_parts(q, k, v, context.parts)
        dropout = self.dropout if self.training else 0.0
        if context.ends is not None:
            return self.attend_each(q, k, v, context.ends, window=self.window, dropout=dropout)
        if context.cache is not None and context.places is not None:
            return self.attend_cached(q, k, v, context.cache, context.places)
        return attend(q, k, v, window=self.window, dropout=dropout)

    def attend_cached(self, q: Tensor, k: Tensor, v: Tensor, cache: Cache, places: Places) -> Tensor:
        """One token (B, 1, H, D) a row over itself and all before it in the cache; returns (B, 1, H, D)."""
        k, v = cache.extend(self.layer, places, k, v)
        # The query heads of a group stand where queries of one head would, so that keys need not be repeated.
        grouped = q.view(len(q), k.shape[1], -1, self.head_dim)  # (B, H, groups, D)
        mask = places.mask(k.shape[2])
        return functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).flatten(1, 2)[:, None]


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: arXiv:2002.05202."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.n_ffn, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.n_embd, config.n_ffn, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.n_ffn, config.n_embd, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C) through (B, T, F)."""
        out: Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
        return out


def pick(x: Tensor, places: Tensor, copies: int) -> Tensor:
    """The places of rows (B, T, ...) that hold so many copies of the same samples, (copies, m, ...)."""
    return x.reshape(copies, -1, *x.shape[2:]).index_select(1, places)


def rotary_tables(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of the rotary angles, (B, T, 1, D) fp32 each, for positions (B, T).

    Dimension i is paired with i + D/2 and turned by position / theta^(2i/D). Source: arXiv:2104.09864, in the
    layout of transformers.
    """
    scaling = config.rope_scaling
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, scaling, positions.device)
    angles = (positions[..., None].float() * frequencies)[..., None, :]  # (B, T, 1, D/2)
    growth = scaling.attention_factor if scaling else 1.0
    cos, sin = angles.cos() * growth, angles.sin() * growth
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
