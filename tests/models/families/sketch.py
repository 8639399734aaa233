"""A GPT-2 of one's own: all that a new family takes is a module like this one and a row of the table.

For users it needs more: `Keys` that refuse what it would not compute in a config.json, and a `check` of the
tensors, as `etude/models/families/decoder.py` has them.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from etude.models.cost import Cost
from etude.models.families import shared
from etude.models.families.family import Facts, Family, Files, Into, Loaded, Pretrained, Reader
from etude.models.parts import count_parts


@dataclass(frozen=True)
class GptConfig:
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    longest: int
    dropout: float = 0.0


class Gpt(nn.Module):
    """GPT-2 under the names of transformers; the head is the embedding."""

    def __init__(self, config: GptConfig, labels: int = 0) -> None:
        super().__init__()
        self.config, C = config, config.n_embd
        blocks = (
            nn.ModuleDict({
                "ln_1": nn.LayerNorm(C), "ln_2": nn.LayerNorm(C),
                "attn": nn.ModuleDict({"c_attn": Conv1D(3 * C, C), "c_proj": Conv1D(C, C)}),
                "mlp": nn.ModuleDict({"c_fc": Conv1D(4 * C, C), "c_proj": Conv1D(C, 4 * C)}),
            })
            for _ in range(config.n_layer)
        )  # fmt: skip
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, C), "wpe": nn.Embedding(config.longest, C),
            "h": nn.ModuleList(blocks), "ln_f": nn.LayerNorm(C),
        })  # fmt: skip

    def forward(
        self, tokens: Tensor, *, positions: Tensor | None = None, lengths: tuple[int, ...] | None = None
    ) -> Tensor:
        parts = [tokens] if lengths is None else torch.split(tokens, list(lengths), dim=1)
        return torch.cat([self._read(part) for part in parts], dim=1)

    def head_weight(self) -> Tensor:
        return cast(Tensor, self.transformer["wte"].weight)

    def _read(self, tokens: Tensor) -> Tensor:
        trunk: Any = self.transformer
        x = trunk["wte"](tokens) + trunk["wpe"](torch.arange(tokens.shape[1]))
        for block in trunk["h"]:
            heads = block["attn"]["c_attn"](block["ln_1"](x)).unflatten(-1, (3, self.config.n_head, -1))
            q, k, v = (part.transpose(1, 2) for part in heads.unbind(2))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["attn"]["c_proj"](mixed.transpose(1, 2).flatten(2))
            inner = functional.gelu(block["mlp"]["c_fc"](block["ln_2"](x)), approximate="tanh")
            x = x + block["mlp"]["c_proj"](inner)
        out: Tensor = trunk["ln_f"](x)
        return out


def _read(files: Files) -> GptConfig:
    names = ("vocab_size", "n_layer", "n_head", "n_embd", "n_positions")
    return GptConfig(*(files.values[name] for name in names))


def _load(pretrained: Pretrained, dtype: torch.dtype, dropout: float, seed: int, into: Into) -> Loaded:
    config = replace(cast(GptConfig, pretrained.config), dropout=dropout)
    return shared.load(pretrained, GPT.empty(config), dtype, seed, into)


def _measure(config: GptConfig, labels: int, seq_len: int, adapter: int) -> tuple[dict[str, int], Cost]:
    parameters = count_parts(GPT.empty(config))
    return parameters, Cost(6.0 * parameters["rest"], 6.0 * parameters["embedding"])


def _describe(config: GptConfig, pretrained: Pretrained | None, facts: Facts) -> dict[str, Any]:
    assert pretrained is not None
    return shared.describe_pretrained(pretrained, facts)


def _label_logits(model: Any, batch: Any) -> Tensor:
    raise NotImplementedError


def _reader(model: Gpt, prompts: list[list[int]], max_tokens: int) -> Reader:
    rows = [list(prompt) for prompt in prompts]

    def read() -> Tensor:
        hidden = [model(torch.tensor([row]))[0, -1] for row in rows]
        return functional.linear(torch.stack(hidden), model.head_weight())

    def advance(chosen: Tensor) -> Tensor:
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.append(token)
        return read()

    return Reader(read(), advance)


GPT = Family(
    name="gpt",
    config=GptConfig,
    modules=(Gpt,),
    objectives=("causal",),
    model_types=("gpt2",),
    takes="GPT-2",
    read=_read,
    load=_load,
    make=Gpt,
    measure=_measure,
    describe=_describe,
    blocks=lambda model: list(model.transformer["h"]),
    label_logits=_label_logits,
    states=_label_logits,
    reader=_reader,
)
