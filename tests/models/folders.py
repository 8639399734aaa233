"""Folders with tiny models of transformers, and changes of their config.json."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.bases import SMALL

THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gptj": (
        "gptj",
        {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "gpt_neox": ("gpt_neox", SMALL),
    "starcoder2": ("starcoder2", SMALL),
    "gemma": ("gemma", SMALL | {"head_dim": 8}),
    "phi": ("phi", SMALL),
    "starcoder2 with a window": ("starcoder2", SMALL | {"sliding_window": 3}),
    "gemma2": ("gemma2", SMALL | {"head_dim": 8, "sliding_window": 3}),
    "mixtral with a window": ("mixtral", SMALL | {"num_local_experts": 2, "sliding_window": 3}),
    "llama with another activation": ("llama", SMALL | {"hidden_act": "gelu"}),
    "llama with dynamic scaling": (
        "llama",
        SMALL | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
}


def change(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def draw_tokens() -> torch.Tensor:
    return torch.randint(61, (2, 20), generator=torch.Generator().manual_seed(1))
