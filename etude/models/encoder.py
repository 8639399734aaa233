"""A bidirectional transformer that is RoBERTa (CodeBERT, UniXcoder) or BERT by configuration.

Each block norms what it adds:  x = norm(x + attention(x)),  x = norm(x + feed_forward(x)).
The modules carry the names of transformers, so `state_dict()` is what its classes save and load.

n samples lie end to end without padding, N tokens in all; C n_embd, F n_ffn, H n_head, D C / H, V vocab_size
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.code_bias import CodeBias
from etude.models.encoder_config import EncoderConfig
from etude.models.layers import draw, embedding, fill, run_block
from etude.models.packing import by_length, count_equal, first_states


@dataclass(frozen=True)
class Group:
    """Samples of equal length side by side; bias: (samples, H, length, length) on their scores, or None."""

    samples: int
    length: int
    bias: Tensor | None = None


class Encoder(nn.Module):
    """An encoder with its heads; its weights mean something after `init_weights` or `load_state_dict`.

    `checkpoint_activations`: compute blocks again for the gradients, as `run_block` does.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.labels = config, config.outputs
        self.checkpoint_activations = False
        is_bert, C = config.family == "bert", config.n_embd
        self.add_module(config.family, Trunk(config, with_pooler=is_bert and self.labels > 0))
        if config.is_masked:
            norm = nn.LayerNorm(C, config.norm_eps)
            rows = nn.ModuleDict({"dense": nn.Linear(C, C), "LayerNorm" if is_bert else "layer_norm": norm})
            predictions = nn.ModuleDict({"transform": rows}) if is_bert else rows
            predictions.register_parameter("bias", nn.Parameter(torch.zeros(config.vocab_size)))
            if is_bert:
                self.cls = nn.ModuleDict({"predictions": predictions})
            else:
                self.lm_head = predictions
        elif self.labels:
            self.classifier = nn.Linear(C, self.labels) if is_bert else _classifier(C, self.labels)
        if config.tasks:
            heads = {name: _classifier(C, labels) for name, labels in config.tasks if labels}
            self.tasks = nn.ModuleDict(heads)
        if config.code_bias != "off":
            self.code_bias = CodeBias(config.n_head)
        if config.code_bias == "after":
            self.code_layer = nn.ModuleDict({"self": Attention(config), "output": AddNorm(C, config)})

    def forward(
        self,
        tokens: Tensor,
        *,
        lengths: tuple[int, ...] | None = None,
        token_types: Tensor | None = None,
        code: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C) of tokens (B, T) int64.

        lengths: of the samples that lie end to end in the one row of tokens, which do not see each other; by
        default every row is a sample. token_types: (B, T) int64, 0 by default. code: (B, T, 4) int64, the
        columns of `CodeBias`, for an encoder with a code bias and for no other.
        """
        # Samples of equal length are brought side by side, for one product of all, and back at the end.
        lengths = lengths or (tokens.shape[1],) * tokens.shape[0]
        assert (code is None) == (self.config.code_bias == "off"), "code is for an encoder with a code bias"
        assert sum(lengths) == tokens.numel() and max(lengths) <= self.config.context, (lengths, tokens.shape)
        order = by_length(lengths)
        ordered = tuple(lengths[sample] for sample in order)
        sizes = [(samples, length) for length, samples in count_equal(ordered)]
        groups = coded = tuple(Group(*size) for size in sizes)
        if code is not None:
            biases = self.code_bias(_reorder(code.flatten(0, 1), lengths, order), sizes)
            coded = tuple(Group(*size, bias) for size, bias in zip(sizes, biases))
        if self.config.code_bias == "inside":
            groups = coded
        types = None if token_types is None else _reorder(token_types.flatten(), lengths, order)
        x = self._trunk().embeddings(_reorder(tokens.flatten(), lengths, order), ordered, types)
        for block in self.blocks():
            x = run_block(block, x, groups, recompute=self.checkpoint_activations and self.training)
        if self.config.code_bias == "after":
            x = self.code_layer["output"](self.code_layer["self"](x, coded), x)
        back = sorted(range(len(order)), key=order.__getitem__)
        return _reorder(x, ordered, back).view(*tokens.shape, -1)

    def classify(self, hidden: Tensor, lengths: tuple[int, ...] | None = None, task: str = "") -> Tensor:
        """Logits (n, labels) of samples from the hidden state of the first token of each.

        task: the one whose head is asked, where there are several.
        """
        first, config = first_states(hidden, lengths), self.config
        dropout = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        classifier: Any = self.tasks[task] if task else self.classifier
        if config.family == "bert" and not task:
            dense, scores = self._trunk().pooler["dense"], classifier
        else:
            dense, scores = classifier["dense"], classifier["out_proj"]
            first = functional.dropout(first, dropout, self.training)
        logits: Tensor = scores(functional.dropout(torch.tanh(dense(first)), dropout, self.training))
        return logits

    def masked_rows(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) made ready for the head: logits are rows head_weight^T + head_bias."""
        predictions = self._predictions()
        if self.config.family == "bert":
            dense, norm = predictions["transform"]["dense"], predictions["transform"]["LayerNorm"]
        else:
            dense, norm = predictions["dense"], predictions["layer_norm"]
        rows: Tensor = norm(functional.gelu(dense(hidden)).type_as(norm.weight))
        return rows

    def head_weight(self) -> Tensor:
        """The (V, C) matrix that turns rows into logits, which is the embedding itself."""
        return self._trunk().embeddings.word_embeddings.weight

    def head_bias(self) -> Tensor:
        """(V,), added to the logits."""
        bias: Tensor = self._predictions().bias
        return bias

    def init_weights(self, seed: int) -> None:
        """Draw new weights."""
        fill(self, self.draw_weights(seed))

    def draw_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """New weights one after another, the same on every device.

        Normal with std 0.02, norms 1, biases and padding 0.
        """
        generator = torch.Generator().manual_seed(seed)
        tables = {module.weight: module for module in self.modules() if isinstance(module, nn.Embedding)}
        for name, parameter in self.named_parameters():
            if name.lower().endswith("norm.weight"):
                yield name, torch.ones(parameter.shape)
            elif name.endswith("bias") or name.startswith("code_bias."):
                yield name, torch.zeros(parameter.shape)
            else:
                drawn = draw(parameter.shape, 0.02, generator)
                if parameter in tables and (padding := tables[parameter].padding_idx) is not None:
                    drawn[padding] = 0.0
                yield name, drawn

    def blocks(self) -> list["Block"]:
        """The blocks, in order."""
        layers: Any = self._trunk().encoder["layer"]
        return list(layers)

    def _trunk(self) -> "Trunk":
        trunk = self.get_submodule(self.config.family)
        assert isinstance(trunk, Trunk)
        return trunk

    def _predictions(self) -> Any:
        """The head that guesses tokens: its bias, and the layers before it."""
        return self.get_submodule("cls.predictions" if self.config.family == "bert" else "lm_head")


class Trunk(nn.Module):
    """Embeddings, blocks and BERT's pooler, under the names of transformers; `Encoder.forward` runs them."""

    def __init__(self, config: EncoderConfig, *, with_pooler: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Block(config) for _ in range(config.n_layer))})
        if with_pooler:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(config.n_embd, config.n_embd)})


class Embeddings(nn.Module):
    """norm(token + type + position), where positions restart in every sample."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout, self.first_position = config.dropout, config.first_position
        self.pad_id = config.pad_id if config.family == "roberta" else None
        self.word_embeddings = embedding(config.vocab_size, config.n_embd, config.pad_id)
        self.position_embeddings = embedding(
            config.context + config.first_position, config.n_embd, self.pad_id
        )
        self.token_type_embeddings = embedding(config.type_vocab_size, config.n_embd, None)
        self.LayerNorm = nn.LayerNorm(config.n_embd, config.norm_eps)

    def forward(self, tokens: Tensor, lengths: tuple[int, ...], token_types: Tensor | None) -> Tensor:
        """(N, C) in the dtype of the norm from tokens (N,)."""
        types = self.token_type_embeddings
        x = self.word_embeddings(tokens) + (types.weight[0] if token_types is None else types(token_types))
        x = (x + self.position_embeddings(self.positions(tokens, lengths))).type_as(self.LayerNorm.weight)
        return functional.dropout(self.LayerNorm(x), self.dropout, self.training)

    def positions(self, tokens: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """(N,) int64; RoBERTa counts from pad_id + 1, without padding tokens, also those of a text."""
        counted = torch.ones_like(tokens) if self.pad_id is None else (tokens != self.pad_id).long()
        places = torch.cat([part.cumsum(0) for part in torch.split(counted, list(lengths))])
        return places * counted + (self.first_position - 1)


class Block(nn.Module):
    """Attention, then feed-forward, each added to its input and normed."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        attention = {"self": Attention(config), "output": AddNorm(config.n_embd, config)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.n_embd, config.n_ffn)})
        self.output = AddNorm(config.n_ffn, config)

    def forward(self, x: Tensor, groups: tuple[Group, ...]) -> Tensor:
        """(N, C) to (N, C) through (N, F)."""
        x = self.attention["output"](self.attention["self"](x, groups), x)
        out: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return out


class AddNorm(nn.Module):
    """norm(x + dense(y)). Source: arXiv:1706.03762."""

    def __init__(self, inputs: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.dense = nn.Linear(inputs, config.n_embd)
        self.LayerNorm = nn.LayerNorm(config.n_embd, config.norm_eps)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """(N, inputs) and (N, C) to (N, C)."""
        normed: Tensor = self.LayerNorm(x + functional.dropout(self.dense(y), self.dropout, self.training))
        return normed


class Attention(nn.Module):
    """Every token of a sample sees all of the same sample."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.attention_dropout
        self.query, self.key, self.value = (nn.Linear(config.n_embd, config.n_embd) for _ in range(3))

    def forward(self, x: Tensor, groups: tuple[Group, ...]) -> Tensor:
        """(N, C) to (N, C), one product for each group."""
        heads = (
            project(x).unflatten(-1, (self.n_head, -1)) for project in (self.query, self.key, self.value)
        )
        sizes = [group.samples * group.length for group in groups]
        parts = zip(*(torch.split(part, sizes) for part in heads))
        dropout = self.dropout if self.training else 0.0
        attended = [_attend(group, *part, dropout=dropout) for group, part in zip(groups, parts)]
        return torch.cat(attended).flatten(1)


def _classifier(width: int, labels: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, width), "out_proj": nn.Linear(width, labels)})


def _attend(group: Group, q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
    """Attention within each sample of a group: (samples x length, H, D) to the same."""
    q, k, v = (
        heads.view(group.samples, group.length, *heads.shape[1:]).transpose(1, 2) for heads in (q, k, v)
    )
    mask = None if group.bias is None else group.bias.to(q.dtype)
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(0, 1)


def _reorder(x: Tensor, lengths: tuple[int, ...], order: list[int]) -> Tensor:
    """The samples of x (N, ...) in another order."""
    if order == list(range(len(order))):
        return x
    parts = torch.split(x, list(lengths))
    return torch.cat([parts[sample] for sample in order])
