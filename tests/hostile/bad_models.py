"""Models, adapters and their files that cannot be used."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.bases import write_qwen2
from tests.hostile.case import Case

GENERATE = ["generate", "model", "--prompt", "a", "--max-tokens", "2"]
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@functools.cache
def _qwen2() -> Path:
    return write_qwen2(Path(tempfile.mkdtemp()) / "model")


def model(change: Callable[[Path], object], words: list[str] | None = None) -> Callable[[Path], list[str]]:
    """A Qwen2 in `model`, changed, and the command that meets it."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        change(folder / "model")
        return words or GENERATE

    return make


def adapter(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Callable[[Path], list[str]]:
    """An adapter on q_proj beside its base, changed, given to `etude generate`."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        config: dict[str, Any] = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "./model", "r": 2,
            "lora_alpha": 4, "target_modules": ["q_proj"],
        }  # fmt: skip
        parts = {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(32, 2)}
        tensors = {
            f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}": tensor.clone()
            for layer in range(2)
            for part, tensor in parts.items()
        }
        change(config, tensors)
        (folder / "adapter").mkdir()
        (folder / "adapter" / CONFIG).write_text(json.dumps(config))
        save_file(tensors, folder / "adapter" / ADAPTER)
        return ["generate", "./adapter", "--prompt", "a"]

    return make


ADAPTERS = [
    Case(
        name="an adapter without a layer that it targets",
        make=adapter(lambda config, tensors: [tensors.pop(name) for name in list(tensors) if "layers.1." in name]),
        says=r"lacks the tensors of model\.layers\.1\.self_attn\.q_proj",
    ),
    Case(
        name="an adapter with an unknown key",
        make=adapter(lambda config, tensors: config.update(future_scaling=3.0)),
        says="future_scaling = 3.0, which is unknown",
    ),
    Case(
        name="an adapter whose targets are a pattern that backtracks",
        make=adapter(lambda config, tensors: config.update(target_modules=r"(.*)*(\w+)*(.*)*(\w+\.)*!")),
        says="takes more than 3 s; list the names",
        quick=False,
    ),
    Case(
        name="an adapter with a long name of a base",
        make=adapter(lambda config, tensors: config.update(base_model_name_or_path="x" * 5000)),
        says="cannot be looked up",
    ),
    Case(
        name="an adapter that is its own base",
        make=adapter(lambda config, tensors: config.update(base_model_name_or_path="./adapter")),
        says=r"has no config\.json",
    ),
    Case(
        name="an adapter of whole numbers",
        make=adapter(lambda config, tensors: tensors.update({name: t.to(torch.int8) for name, t in tensors.items()})),
        says="holds int8 numbers",
    ),
    Case(
        name="an adapter of another shape",
        make=adapter(lambda config, tensors: config.update(r=4)),
        says="but r = 4 and the base ask for",
    ),
    Case(
        name="an adapter with alpha NaN",
        make=adapter(lambda config, tensors: config.update(lora_alpha=float("nan"))),
        says="does not describe a LoRA adapter",
    ),
]


def config(**changes: Any) -> Callable[[Path], list[str]]:
    """A Qwen2 whose config.json has other values."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return model(change)


CONFIGS = [
    Case(
        name="rope_scaling and rope_parameters that differ",
        make=config(rope_scaling={"rope_type": "yarn", "factor": 2.0}, rope_parameters={"rope_type": "default"}),
        says=r"rope_parameters\.factor = None and rope_scaling\.factor = 2\.0; keep one",
    ),
    Case(name="hidden_size and n_embd that differ", make=config(n_embd=64), says="hidden_size = 32 and n_embd = 64"),
    Case(
        name="a config.json with a key twice",
        make=model(
            lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2", "model_type": "llama"}')
        ),
        says="the key 'model_type' twice",
    ),
]
CASES = [*ADAPTERS, *CONFIGS]
