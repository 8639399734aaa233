"""Inputs that made other tools compute something else without a word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.bases import write_t5
from tests.hostile.bad_models import adapter, model
from tests.hostile.case import Case


def config(**changes: Any) -> Callable[[Path], list[str]]:
    """A Qwen2 whose config.json has these keys, too."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return model(change)


def t5(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Callable[[Path], list[str]]:
    """A T5 in `model`, changed, given to `etude generate`."""

    def make(folder: Path) -> list[str]:
        base = write_t5(folder / "model")
        values, tensors = (
            json.loads((base / "config.json").read_text()),
            load_file(base / "model.safetensors"),
        )
        change(values, tensors)
        (base / "config.json").write_text(json.dumps(values))
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
        return ["generate", "model", "--prompt", "a", "--max-tokens", "2"]

    return make


def rotary(kind: str, **said: Any) -> Callable[[Path], list[str]]:
    return config(rope_parameters={"rope_type": kind, "rope_theta": 1e4, **said})


def other_head(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["shared.weight"] + 1


def without_embedding(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.embed_tokens.weight"] = tensors.pop("shared.weight")


CASES = [
    Case(
        name="a rank of a single layer that its tensors have not",
        make=adapter(lambda values, tensors: values.update(rank_pattern={"q_proj": 8})),
        says="but r = 8 and the base ask for",
    ),
    Case(
        name="a rank of a single layer of 0",
        make=adapter(lambda values, tensors: values.update(rank_pattern={"q_proj": 0})),
        says="expected numbers from 1 to 4096",
    ),
    Case(
        name="a rank of single layers that is a list",
        make=adapter(lambda values, tensors: values.update(rank_pattern=["q_proj"])),
        says="expected an object of modules",
    ),
    Case(
        name="an alpha of a single layer that is no number",
        make=adapter(lambda values, tensors: values.update(alpha_pattern={"q_proj": "16"})),
        says="expected numbers above 0",
    ),
    Case(
        name="an alpha of a single layer under a broken pattern",
        make=adapter(lambda values, tensors: values.update(alpha_pattern={"(q_proj": 16})),
        says="is no regular expression",
    ),
    Case(
        name="an alpha of a single layer under a pattern that backtracks",
        make=adapter(lambda values, tensors: values.update(alpha_pattern={r"(.*)*(\w+)*(.*)*(\w+\.)*!": 16})),
        says="takes more than 3 s; list the names",
        quick=False,
    ),
    Case(name="a head of T5 unlike the embedding", make=t5(other_head), says="but it is another matrix"),
    Case(
        name="a T5 without the head that its config promises",
        make=t5(lambda values, tensors: values.update(tie_word_embeddings=False)),
        says=r"the files have no lm_head\.weight",
    ),
    Case(
        name="a T5 with the embedding of one side alone",
        make=t5(without_embedding),
        says=r"lacks shared\.weight",
    ),
    Case(name="yarn without its factor", make=rotary("yarn"), says="cannot (build|read)|is missing"),
    Case(
        name="linear rotary positions by null",
        make=rotary("linear", factor=None),
        says="cannot (build|read)|is missing",
    ),
    Case(
        name="llama3 without its bounds",
        make=rotary("llama3", factor=8.0),
        says="cannot (build|read)|is missing",
    ),
    Case(
        name="a sliding window of 0",
        make=config(sliding_window=0, use_sliding_window=True, max_window_layers=0, layer_types=None),
        says="sliding_window is 0; expected 1 to",
    ),
]
