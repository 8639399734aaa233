"""An encoder-decoder that is T5, T5 1.1, CodeT5 or CodeT5+ (220M, 770M) by configuration.

Each block adds to the residual stream x:  x += part(norm(x))  for self-attention, in the decoder attention to
what the encoder read, and the feed-forward. Scores of attention are not scaled; those of self-attention get a
learnt bias for how far apart two tokens are. The modules carry the names of transformers, so `state_dict()`
is what its classes load.

n samples lie end to end without padding, S source and T target tokens in all; B rows of a cache; C n_embd, F
n_ffn, H n_head, D head_dim, V vocab_size. Source: arXiv:1910.10683; 1.1, arXiv:2002.05202.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.layers import draw, embedding, fill, run_block
from etude.models.packing import by_length, count_equal, find_places, last_states, send, shift_right
from etude.models.t5_blocks import Context, Stack
from etude.models.t5_config import T5Config

# Columns by which a cache grows: fewer would be copied more often, more be held without need.
_COLUMNS = 64


class T5(nn.Module):
    """An encoder-decoder; its weights mean something after `init_weights` or `load_state_dict`.

    `checkpoint_activations`: compute blocks again for the gradients, as `run_block` does.

    In fp16 the feed-forward of deep blocks leaves the range of numbers. Under autocast the residual stream
    and norms stay fp32, and with fp16 so do the activation and the product with `wo`; see `keeps_fp32` for
    weights.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.shared = embedding(config.vocab_size, config.n_embd)
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
        """Hidden states (1, T, C), scaled for the head, of decoder inputs (1, T) and sources (1, S) int64.

        The samples lie end to end in both, and see only themselves: logits are `hidden @ head_weight().T`.
        """
        assert len(source_lengths) == len(target_lengths) and sum(target_lengths) == targets.shape[1]
        memory = self.encode(sources, source_lengths)
        pairs = list(zip(target_lengths, source_lengths))
        order = sorted(range(len(pairs)), key=pairs.__getitem__)
        places = find_places(target_lengths, order, targets.device)
        ordered = [pairs[sample] for sample in order]
        context = Context(
            [(count, length, length) for length, count in count_equal([target for target, _ in ordered])],
            self.decoder.bias(max(target_lengths)),
            memory[:, find_places(source_lengths, order, targets.device)],
            [(count, *pair) for pair, count in count_equal(ordered)],
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
        order = by_length(lengths)
        places = find_places(lengths, order, tokens.device)
        groups = [(count, length, length) for length, count in count_equal(sorted(lengths))]
        context = Context(groups, self.encoder.bias(max(lengths)))
        return self._run(self.encoder, tokens[:, places], context)[:, places.argsort()]

    def head_weight(self) -> Tensor:
        """The (V, C) matrix that turns hidden states into logits; the embedding itself when tied."""
        return self.shared.weight if self.config.tied else self.lm_head.weight

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C) as `forward` gives them."""
        return functional.linear(hidden, self.head_weight().to(hidden.dtype))

    def start(self, sources: Tensor, source_lengths: tuple[int, ...], capacity: int) -> "T5Cache":
        """Read sources (1, S) that lie end to end, each for a row that may go on for `capacity` tokens."""
        memory = self.encode(sources, source_lengths)
        lengths, first = torch.tensor(source_lengths), torch.tensor((0, *source_lengths)).cumsum(0)[:-1]
        column = torch.arange(max(source_lengths))
        has = column < lengths[:, None]  # (B, S)
        places = send(torch.where(has, first[:, None] + column, 0), sources.device)
        keys, values = zip(*(block.remember(memory, places) for block in self.decoder.blocks()))
        return T5Cache(
            [*keys], [*values], send(lengths, sources.device), self.decoder.bias(capacity)[:, :, -1:]
        )

    def advance(self, tokens: Tensor, cache: "T5Cache") -> Tensor:
        """Logits (B, V) after the next token (B,) of each row, without dropout; the cache then holds it too.

        The first token of a row is `config.start_id`.
        """
        x = self._embed(tokens[:, None])
        bias = cache.begin()
        for layer, block in enumerate(self.decoder.blocks()):
            sources = cache.cross_keys[layer], cache.cross_values[layer]
            x = block.advance(x, partial(cache.extend, layer), bias, sources, cache.mask)
        cache.length += 1
        return self.head(self._scale(self.decoder.final_layer_norm(x)))[:, 0]

    def compile(self, *args: Any, **settings: Any) -> None:
        """As `nn.Module.compile`, of the feed-forward parts: groups of equal length differ by batch."""
        for block in (*self.encoder.blocks(), *self.decoder.blocks()):
            block.last.part.compile(*args, **settings)

    def init_weights(self, seed: int) -> None:
        """Draw new weights."""
        fill(self, self.draw_weights(seed))

    def draw_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """New weights one after another, the same on every device: normal with the std of T5."""
        C, F, H, D = self.config.n_embd, self.config.n_ffn, self.config.n_head, self.config.head_dim
        stds = {"shared": 1.0, "lm_head": 1.0, "q": (C * D) ** -0.5, "o": (H * D) ** -0.5, "wo": F**-0.5}
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                yield name, torch.ones(parameter.shape)
            else:
                yield name, draw(parameter.shape, stds.get(name.split(".")[-2], C**-0.5), generator)

    def _run(self, stack: "Stack", tokens: Tensor, context: Context) -> Tensor:
        x = functional.dropout(self._embed(tokens), self.config.dropout, self.training)
        for block in stack.block:
            x = run_block(block, x, context, recompute=self.checkpoint_activations and self.training)
        return functional.dropout(stack.final_layer_norm(x), self.config.dropout, self.training)

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.shared(tokens).to(self.encoder.final_layer_norm.weight.dtype)
        return embedded

    def _scale(self, hidden: Tensor) -> Tensor:
        return hidden * self.config.n_embd**-0.5 if self.config.scaled else hidden


class T5Classifier(nn.Module):
    """A T5 whose decoder reads the tokens of its encoder one place later, with a head on its last state.

    The names and the sum are those of T5ForSequenceClassification. Source: arXiv:1910.13461.
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
        lengths = lengths or (tokens.shape[1],) * tokens.shape[0]
        read = tokens.reshape(1, -1)
        given = shift_right(read, lengths, self.config.start_id)
        hidden: Tensor = self.transformer(read, given, source_lengths=lengths, target_lengths=lengths)
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


class T5Cache:
    """The memory of the decoder for B rows; those that began later have their tokens in the last columns.

    keys, values              a (B, H, columns, D) for each layer, of the tokens read; columns are added
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
        self._first, self._is_even = 0, True  # the first column that a row uses; true if it is that of all
        self._origins = torch.arange(len(lengths), device=lengths.device)  # the source of each row
        self._look()

    def begin(self) -> Tensor:
        """Make room for the token to be read; returns its bias (1 or B, H, 1, columns) of self-attention."""
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
        """Put the (B, H, 1, D) keys and values of the token being read in place; returns all up to it."""
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


def _change(parts: list[Tensor], change: Callable[[Tensor], Tensor]) -> None:
    """Put something else in the place of each tensor, one after another."""
    for index, part in enumerate(parts):
        parts[index] = change(part)
