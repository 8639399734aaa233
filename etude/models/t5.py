"""An encoder-decoder that is T5, T5 1.1, CodeT5 or CodeT5+ (220M, 770M) by configuration.

Each block adds to the residual stream x:  x += part(norm(x))  for self-attention, in the decoder attention to
what the encoder read, and the feed-forward. Scores of attention are not scaled; those of self-attention get a
learnt bias for how far apart two tokens are. The modules carry the names of transformers, so `state_dict()`
is what its classes load.

n samples lie end to end without padding, S source and T target tokens in all; B rows of a cache; C n_embd, F
n_ffn, H n_head, D head_dim, V vocab_size. Source: arXiv:1910.10683; 1.1, arXiv:2002.05202.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from etude.models.decoder import RMSNorm, last_states
from etude.models.t5_config import T5Config


class T5Cache:
    """What the decoder remembers of B rows; those that began later have their tokens in the last columns.

    keys, values              a (B, H, columns, D) for each layer, of the tokens read; more columns come as
                              needed
    cross_keys, cross_values  a (B, H, S, D) for each layer, of the sources, S the longest
    lengths                   (B,) int64, of the sources
    starts                    (B,) int64, the column of the first token of a row
    bias                      (1, H, 1, capacity), for distances capacity - 1 ... 1, 0

    A tensor for each layer, so that what is moved takes the memory of one layer more, not of all.
    """

    def __init__(
        self, cross_keys: list[Tensor], cross_values: list[Tensor], lengths: Tensor, bias: Tensor
    ) -> None:
        self.cross_keys, self.cross_values, self.lengths, self.bias = cross_keys, cross_values, lengths, bias
        self.keys, self.values = ([kept[:, :, :0] for kept in cross_keys] for _ in range(2))
        self.length, self.starts = 0, torch.zeros_like(lengths)
        self._first, self._is_even = (
            0,
            True,
        )  # the first column that a row uses, and whether it is that of all
        self._origins = torch.arange(
            len(lengths), device=lengths.device
        )  # which source each row goes on from
        self._look()

    def begin(self) -> Tensor:
        """Bias (1 or B, H, 1, columns) of self-attention for the token to be read; there then is
        room for it."""
        if self.length == self.keys[0].shape[2]:
            for kept in (self.keys, self.values):
                _change(kept, lambda part: functional.pad(part[:, :, self._first :], (0, 0, 0, _COLUMNS)))
            self.starts, self.length, self._first = self.starts - self._first, self.length - self._first, 0
        columns = self.length + 1 - self._first
        assert columns <= self.bias.shape[-1], "the cache is full"
        bias = self.bias[..., self.bias.shape[-1] - columns :]
        if self._is_even:
            return bias
        before = torch.arange(self._first, self.length + 1, device=self.starts.device) < self.starts[:, None]
        return bias.masked_fill(before[:, None, None], -torch.inf)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the (B, H, 1, D) keys and values of the token being read in their place; returns
        all up to it."""
        seen = slice(self._first, self.length + 1)
        for kept, new in ((self.keys[layer], keys), (self.values[layer], values)):
            kept[:, :, self.length] = new[:, :, 0]
        return self.keys[layer][:, :, seen], self.values[layer][:, :, seen]

    def select(self, rows: Tensor | Sequence[int]) -> None:
        """Go on with these rows in this order; a row may be dropped, or taken several times."""
        chosen = torch.as_tensor(rows, device=self.lengths.device)
        for kept in (self.keys, self.values):
            _change(kept, lambda part: part[chosen])
        self.starts = self.starts[chosen]
        before, self._origins = self._origins, self._origins[chosen]
        if torch.equal(before, self._origins):  # beams of a source changed places among themselves
            return
        for kept in (self.cross_keys, self.cross_values):
            _change(kept, lambda part: part[chosen])
        self.lengths = self.lengths[chosen]
        self._look()

    def refill(self, rows: Sequence[int], fresh: "T5Cache") -> None:
        """Begin anew in these rows, each with a source of a cache that has read no token."""
        assert fresh.length == 0
        chosen, width = torch.tensor(rows, device=self.lengths.device), fresh.cross_keys[0].shape[2]
        more = width - self.cross_keys[0].shape[2]
        for kept, new in ((self.cross_keys, fresh.cross_keys), (self.cross_values, fresh.cross_values)):
            if more > 0:
                _change(kept, lambda part: functional.pad(part, (0, 0, 0, more)))
            for mine, theirs in zip(kept, new):
                mine[chosen, :, :width] = theirs
        self.lengths[chosen], self.starts[chosen] = fresh.lengths, self.length
        self._origins[chosen] = fresh._origins + self._origins.max() + 1
        self._look()

    def _look(self) -> None:
        """Find what the rows that are left have in common, so that no step has to."""
        if not len(self.lengths):
            return
        width, shortest = int(self.lengths.max()), int(self.lengths.min())
        for kept in (self.cross_keys, self.cross_values):
            _change(kept, lambda part: part[:, :, :width])
        column = torch.arange(width, device=self.lengths.device)
        # (B, 1, 1, S), which places of the longest source a row has; None for all
        self.mask = None if shortest == width else (column < self.lengths[:, None])[:, None, None]
        self._first, self._is_even = int(self.starts.min()), bool((self.starts == self.starts[0]).all())


@dataclass(frozen=True)
class Context:
    """What all blocks of a stack share in one call. Samples of equal lengths are neighbours.

    groups       (samples, length, length) of the neighbours
    bias         (1, H, L, L) of relative positions, with -inf where the decoder must not look; L the longest
                 length
    memory       (1, S, C) what the encoder made of the sources; None within the encoder
    with_memory  (samples, target length, source length) of the neighbours
    """

    groups: Sequence[tuple[int, int, int]]
    bias: Tensor
    memory: Tensor | None = None
    with_memory: Sequence[tuple[int, int, int]] = ()


class T5(nn.Module):
    """An encoder-decoder; its weights mean something after `init_weights` or `load_state_dict`.

    `checkpoint_activations`: keep only the input of each block while training and compute the rest again for
    the gradients, with the same dropout.

    In fp16 the feed-forward of deep blocks leaves the range of numbers. Under autocast the residual stream
    and norms stay fp32, and with fp16 so do the activation and the product with `wo`; see `keeps_fp32` for
    weights.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.shared = _embedding(config.vocab_size, config.n_embd)
        self.encoder = Stack(config, config.n_layer, is_decoder=False)
        self.decoder = Stack(config, config.n_decoder_layer, is_decoder=True)
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(
        self,
        sources: Tensor,
        targets: Tensor,
        *,
        source_lengths: tuple[int, ...],
        target_lengths: tuple[int, ...],
    ) -> Tensor:
        """Hidden states (1, T, C), scaled for the head, of decoder inputs (1, T) int64 given sources (1, S)
        int64.

        The samples lie end to end in both, and see only themselves: logits are `hidden @ head_weight().T`.
        """
        assert len(source_lengths) == len(target_lengths) and sum(target_lengths) == targets.shape[1]
        memory = self.encode(sources, source_lengths)
        pairs = list(zip(target_lengths, source_lengths))
        order = sorted(range(len(pairs)), key=pairs.__getitem__)
        places = _places(target_lengths, order).to(targets.device)
        ordered = [pairs[sample] for sample in order]
        context = Context(
            [(count, length, length) for (length,), count in _runs([(target,) for target, _ in ordered])],
            self.decoder.bias(max(target_lengths)),
            memory[:, _places(source_lengths, order).to(targets.device)],
            [(count, *pair) for pair, count in _runs(ordered)],
        )
        hidden = self._run(self.decoder, targets[:, places], context)[:, places.argsort()]
        return self._scale(hidden)

    def encode(self, tokens: Tensor, lengths: tuple[int, ...] | None = None) -> Tensor:
        """Hidden states (1, S, C) after the encoder's final norm, of tokens (1, S) int64.

        lengths: of the samples that lie end to end in the one row and do not see each other; None for a
        single one.
        """
        lengths = lengths or (tokens.shape[1],)
        assert min(lengths) > 0 and sum(lengths) == tokens.shape[1], (lengths, tokens.shape)
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        places = _places(lengths, order).to(tokens.device)
        groups = [
            (count, length, length) for (length,), count in _runs([(lengths[sample],) for sample in order])
        ]
        context = Context(groups, self.encoder.bias(max(lengths)))
        return self._run(self.encoder, tokens[:, places], context)[:, places.argsort()]

    def head_weight(self) -> Tensor:
        """The (V, C) matrix that turns hidden states into logits; the embedding itself when tied."""
        return self.shared.weight if self.config.tied else self.lm_head.weight

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C) as `forward` gives them."""
        return functional.linear(hidden, self.head_weight().to(hidden.dtype))

    def start(self, sources: Tensor, source_lengths: tuple[int, ...], capacity: int) -> T5Cache:
        """Read sources (1, S) that lie end to end, each for a row that may go on for `capacity` tokens."""
        memory = self.encode(sources, source_lengths)
        lengths, first = torch.tensor(source_lengths), torch.tensor((0, *source_lengths)).cumsum(0)[:-1]
        column = torch.arange(max(source_lengths))
        has = column < lengths[:, None]  # (B, S)
        places = torch.where(has, first[:, None] + column, 0).to(sources.device)
        cross = [block.cross.part for block in self.decoder.blocks()]
        keys = [part.split(part.k(memory)[0][places]).contiguous() for part in cross]
        values = [part.split(part.v(memory)[0][places]).contiguous() for part in cross]
        lengths = lengths.to(sources.device)
        return T5Cache(keys, values, lengths, self.decoder.bias(capacity)[:, :, -1:])

    def advance(self, tokens: Tensor, cache: T5Cache) -> Tensor:
        """Logits (B, V) after the next token (B,) of each row, which the cache then holds too; without
        dropout.

        The first token of a row is `config.start_id`.
        """
        x = self._embed(tokens[:, None])
        bias = cache.begin()
        for layer, block in enumerate(self.decoder.blocks()):
            own, cross = block.own.part, block.cross.part
            normed = block.own.layer_norm(x)
            seen = cache.extend(layer, own.split(own.k(normed)), own.split(own.v(normed)))
            x = x + own.attend_cached(normed, *seen, bias)
            sources = cache.cross_keys[layer], cache.cross_values[layer]
            x = x + cross.attend_cached(block.cross.layer_norm(x), *sources, cache.mask)
            x = x + block.last.part(block.last.layer_norm(x))
        cache.length += 1
        return self.head(self._scale(self.decoder.final_layer_norm(x)))[:, 0]

    def compile(self, *args: Any, **settings: Any) -> None:
        """As `nn.Module.compile`, of the feed-forward parts: groups of equal length differ from batch to
        batch.
        """
        for block in (*self.encoder.blocks(), *self.decoder.blocks()):
            block.last.part.compile(*args, **settings)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw new weights, the same on every device: normal with the std of T5, which makes up for unscaled
        scores.
        """
        C, F, H, D = self.config.n_embd, self.config.n_ffn, self.config.n_head, self.config.head_dim
        stds = {"shared": 1.0, "lm_head": 1.0, "q": (C * D) ** -0.5, "o": (H * D) ** -0.5, "wo": F**-0.5}
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                drawn = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
                parameter.copy_(
                    drawn.normal_(std=stds.get(name.split(".")[-2], C**-0.5), generator=generator)
                )

    def _run(self, stack: "Stack", tokens: Tensor, context: Context) -> Tensor:
        x = functional.dropout(self._embed(tokens), self.config.dropout, self.training)
        for block in stack.block:
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, context, use_reentrant=False, preserve_rng_state=True)
            else:
                x = block(x, context)
        return functional.dropout(stack.final_layer_norm(x), self.config.dropout, self.training)

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.shared(tokens).to(self.encoder.final_layer_norm.weight.dtype)
        return embedded

    def _scale(self, hidden: Tensor) -> Tensor:
        return hidden * self.config.n_embd**-0.5 if self.config.scaled else hidden


class T5Classifier(nn.Module):
    """A T5 whose decoder reads, one place later, what its encoder reads, with a head on the state of the last
    token.

    The names and the sum are those of T5ForSequenceClassification. Source: arXiv:1910.13461, for its decoder
    too.
    """

    def __init__(self, config: T5Config, labels: int) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.transformer = T5(replace(config, tied=True, scaled=False))  # without a head for tokens
        dense, scores = nn.Linear(config.n_embd, config.n_embd), nn.Linear(config.n_embd, labels)
        self.classification_head = nn.ModuleDict({"dense": dense, "out_proj": scores})

    def forward(self, tokens: Tensor, *, lengths: tuple[int, ...] | None = None) -> Tensor:
        """Hidden states (B, T, C) of the decoder for tokens (B, T) int64.

        lengths: of the samples that lie end to end in the one row of tokens; by default every row is a
        sample.
        """
        each = lengths or (tokens.shape[1],) * tokens.shape[0]
        read = tokens.reshape(1, -1)
        given = read.roll(1)
        given[0, torch.tensor((0, *each[:-1])).cumsum(0).to(read.device)] = self.config.start_id
        hidden: Tensor = self.transformer(read, given, source_lengths=each, target_lengths=each)
        return hidden.view(*tokens.shape, -1)

    def classify(self, hidden: Tensor, lengths: tuple[int, ...] | None = None) -> Tensor:
        """Logits (n, labels) of samples from the hidden states that `forward` returns."""
        dense, scores = cast(Any, self.classification_head).values()
        dropout = self.config.dropout
        last = functional.dropout(last_states(hidden, lengths), dropout, self.training)
        inner = torch.tanh(dense(last.to(dense.weight.dtype)))
        logits: Tensor = scores(functional.dropout(inner, dropout, self.training))
        return logits

    def compile(self, *args: Any, **settings: Any) -> None:
        """As `T5.compile`."""
        self.transformer.compile(*args, **settings)


def keeps_fp32(name: str, dtype: torch.dtype) -> bool:
    """Whether a parameter stays fp32 in a model whose other weights are loaded in `dtype`."""
    return name.endswith("norm.weight") or (dtype == torch.float16 and name.endswith(".wo.weight"))


def relative_buckets(distance: Tensor, *, buckets: int, max_distance: int, is_decoder: bool) -> Tensor:
    """The bucket of each distance (place of the key less that of the query), int64 of any shape.

    The first half of the buckets are for one distance each, the others for ranges that grow by a constant
    factor up to max_distance, and all beyond. Those of the encoder are shared out between both directions;
    the decoder has one.
    """
    if is_decoder:
        first, near = torch.zeros_like(distance), (-distance).clamp(min=0)
    else:
        buckets //= 2
        first, near = (distance > 0) * buckets, distance.abs()
    exact = buckets // 2
    # fp32 and in this order, so that borders fall where they fell in training.
    grown = (near.float() / exact).log() / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + grown.clamp(min=0).long()).clamp(max=buckets - 1)
    return first + torch.where(near < exact, near, far)


class Stack(nn.Module):
    """Blocks and final norm of one side, under the names that transformers gives them; `T5` runs them."""

    def __init__(self, config: T5Config, n_layer: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.config, self.is_decoder = config, is_decoder
        self.block = nn.ModuleList(
            Block(config, is_first=layer == 0, is_decoder=is_decoder) for layer in range(n_layer)
        )
        self.final_layer_norm = RMSNorm(config.n_embd, config.norm_eps)

    def blocks(self) -> list["Block"]:
        """The same with their type."""
        return cast(list[Block], list(self.block))

    def bias(self, length: int) -> Tensor:
        """Bias (1, H, L, L) of self-attention in samples of L tokens, and, cut, in shorter ones."""
        table = self.blocks()[0].own.part.relative_attention_bias.weight  # (buckets, H)
        distance = torch.arange(1 - length, length, device=table.device)
        buckets = relative_buckets(
            distance,
            buckets=self.config.buckets,
            max_distance=self.config.max_distance,
            is_decoder=self.is_decoder,
        )
        by_distance = table[buckets].T  # (H, 2 L - 1)
        if self.is_decoder:
            by_distance = by_distance.masked_fill(distance > 0, -torch.inf)
        # The row of query i starts at distance -i: windows of L that move left from row to row.
        bias: Tensor = by_distance.unfold(1, length, 1).flip(1)[None]
        return bias


class Block(nn.Module):
    """Self-attention, in the decoder attention to the sources, and feed-forward."""

    def __init__(self, config: T5Config, *, is_first: bool, is_decoder: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Sublayer(config, "SelfAttention", Attention(config, has_bias=is_first))])
        if is_decoder:
            self.layer.append(Sublayer(config, "EncDecAttention", Attention(config, has_bias=False)))
        self.layer.append(Sublayer(config, "DenseReluDense", FeedForward(config)))

    @property
    def own(self) -> "Sublayer":
        """Self-attention."""
        return cast(Sublayer, self.layer[0])

    @property
    def cross(self) -> "Sublayer":
        """Attention to the sources."""
        return cast(Sublayer, self.layer[1])

    @property
    def last(self) -> "Sublayer":
        """Feed-forward."""
        return cast(Sublayer, self.layer[-1])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(1, T, C) to (1, T, C)."""
        x = self.own(x, context.groups, bias=context.bias)
        if context.memory is not None:
            x = self.cross(x, context.with_memory, memory=context.memory)
        out: Tensor = self.last(x)
        return out


class Sublayer(nn.Module):
    """x + part(norm(x)), where the part has the name that transformers gives it."""

    def __init__(self, config: T5Config, name: str, part: nn.Module) -> None:
        super().__init__()
        self.dropout, self.name = config.dropout, name
        self.add_module(name, part)
        self.layer_norm = RMSNorm(config.n_embd, config.norm_eps)

    @property
    def part(self) -> Any:
        """The attention or feed-forward."""
        return getattr(self, self.name)

    def forward(self, x: Tensor, *shared: Any, **others: Any) -> Tensor:
        """(1, T, C) to (1, T, C); what else there is goes to the part."""
        return x + functional.dropout(
            self.part(self.layer_norm(x), *shared, **others), self.dropout, self.training
        )


class Attention(nn.Module):
    """Attention within samples, scores not scaled; the first of a stack has the table of bias
    that all share."""

    def __init__(self, config: T5Config, *, has_bias: bool) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        inner = config.n_head * config.head_dim
        self.q = nn.Linear(config.n_embd, inner, bias=False)
        self.k = nn.Linear(config.n_embd, inner, bias=False)
        self.v = nn.Linear(config.n_embd, inner, bias=False)
        self.o = nn.Linear(inner, config.n_embd, bias=False)
        if has_bias:
            self.relative_attention_bias = _embedding(config.buckets, config.n_head)

    def forward(
        self,
        x: Tensor,
        groups: Sequence[tuple[int, int, int]],
        *,
        bias: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(1, T, C) to (1, T, C); keys and values are of x itself, or of memory (1, S, C).

        groups: (samples, queries of each, keys of each), in order. bias: (1, H, L, L) for the longest.
        """
        seen = x if memory is None else memory
        queries = [samples * length for samples, length, _ in groups]
        keys = [samples * length for samples, _, length in groups]
        parts = zip(self.q(x)[0].split(queries), self.k(seen)[0].split(keys), self.v(seen)[0].split(keys))
        attended = []
        for (samples, _, length), part in zip(groups, parts):
            q, k, v = (self.split(heads.unflatten(0, (samples, -1))) for heads in part)
            mask = None if bias is None else bias[:, :, :length, :length]
            dropout = self.dropout if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=1.0
            )
            attended.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
        out: Tensor = self.o(torch.cat(attended)[None])
        return out

    def attend_cached(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """One token (B, 1, C) a row over keys and values (B, H, S, D); returns (B, 1, C)."""
        q = self.split(self.q(x))
        mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=1.0)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out

    def split(self, heads: Tensor) -> Tensor:
        """(B, T, H D) to (B, H, T, D)."""
        return heads.view(*heads.shape[:-1], self.n_head, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """wo(act(wi(x))), or gated wo(act(wi_0(x)) * wi_1(x)). Source: arXiv:2002.05202."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        kind = config.activation.removeprefix("gated-")
        self.act = _gelu_tanh if config.activation == "gated-gelu" else getattr(functional, kind)
        self.inner = ("wi_0", "wi_1") if config.gated else ("wi",)
        for name in self.inner:
            self.add_module(name, nn.Linear(config.n_embd, config.n_ffn, bias=False))
        self.wo = nn.Linear(config.n_ffn, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C) through (B, T, F)."""
        raw: list[Tensor] = [self.get_submodule(name)(x) for name in self.inner]
        is_fp16 = raw[0].dtype == torch.float16
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not is_fp16):
            first, *second = (product.float() if is_fp16 else product for product in raw)
            hidden = functional.dropout(math.prod(second, start=self.act(first)), self.dropout, self.training)
            if is_fp16 and self.wo.weight.is_floating_point():
                hidden = hidden.to(self.wo.weight.dtype)
            out: Tensor = self.wo(hidden)
        return out


def _change(parts: list[Tensor], change: Callable[[Tensor], Tensor]) -> None:
    """Put something else in the place of each tensor, one after another."""
    for index, part in enumerate(parts):
        parts[index] = change(part)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _embedding(rows: int, width: int) -> nn.Embedding:
    """Not drawn here: on the meta device that would load a second of torch's compiler."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)  # type: ignore[no-untyped-call,no-any-return]


def _places(lengths: Sequence[int], order: Sequence[int]) -> Tensor:
    """Where the tokens of samples that lie end to end are, sample by sample in another order; (T,) int64."""
    firsts = list(accumulate(lengths, initial=0))
    return torch.cat([torch.arange(firsts[sample], firsts[sample + 1]) for sample in order])


def _runs(values: Sequence[tuple[int, ...]]) -> list[tuple[Any, int]]:
    """Each value and how often it stands there in a row."""
    return [(value, len(list(same))) for value, same in groupby(values)]


# Columns by which a cache grows: fewer would be copied more often, more be held without need.
_COLUMNS = 64
