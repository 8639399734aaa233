"""Rows of the embedding and head that nothing trained are found, and said where an adapter freezes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from etude.models.untrained import find_untrained
from etude.recipe.load import recipe_from
from etude.records import events
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_llama, write_qwen2


def frozen(change: Callable[[torch.Tensor], Any], *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """An embedding of 400 rows whose rows 7 and 9 are changed."""
    torch.manual_seed(0)
    weight = torch.randn(400, 32)
    change(weight)
    model = nn.Module()
    model.embed = nn.Embedding.from_pretrained(weight.to(dtype), freeze=True)  # type: ignore[no-untyped-call]
    return model


def repeat(weight: torch.Tensor) -> None:
    weight[7], weight[9] = weight[300], weight[301]


def near_mean(weight: torch.Tensor) -> None:
    weight[7], weight[9] = weight.mean(dim=0) + 1e-5, weight.mean(dim=0)


@pytest.mark.parametrize(
    "change", [lambda w: w[[7, 9]].zero_() is w.index_fill_(0, torch.tensor([7, 9]), 0.0), repeat, near_mean,
               lambda w: w.__setitem__([7, 9], w[[7, 9]] * 1e-3)],
    ids=["zero", "repeated", "mean", "small"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_untrained_rows_are_found(change: Callable[[torch.Tensor], Any], dtype: torch.dtype) -> None:
    assert find_untrained(frozen(change, dtype=dtype), [1, 7, 9, 50]) == [7, 9]


def test_trained_rows_and_rows_that_are_trained_now_are_not() -> None:
    assert find_untrained(frozen(lambda weight: weight), range(0, 400, 7)) == []
    model = frozen(near_mean)
    model.embed.weight.requires_grad = True  # type: ignore[union-attr]
    assert find_untrained(model, [7, 9]) == []


@pytest.mark.parametrize("part", ["model.embed_tokens.weight", "lm_head.weight"])
def test_the_start_of_a_run_names_them(part: str, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    chat = write_qwen2(tmp_path / "chat")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((chat / name).read_bytes())
    rows = write_instructions(tmp_path / "rows.jsonl")

    def findings(template: str) -> list[events.Finding]:
        values: dict[str, Any] = {
            "name": "lora",
            "model": {"from": str(base)},
            "adapter": {"rank": 2},
            "data": {"train": [{"path": str(rows)}], "validation": "none", "template": template},
            "train": {
                "steps": 1,
                "seq_len": 96,
                "global_batch_size": 4,
                "device": "cpu",
                "precision": "fp32",
            },
        }
        run = run_recipe(recipe_from(values), Options(runs=tmp_path / "runs", new=True)).run
        found = [each.event for each in run.ledger().entries if isinstance(each.event, events.Finding)]
        return [each for each in found if each.what == "untrained tokens"]

    assert findings("auto") == []
    tensors = load_file(base / "model.safetensors")
    ids = {
        each["content"]: each["id"]
        for each in json.loads((base / "tokenizer.json").read_text())["added_tokens"]
    }
    tensors[part][[ids["<|im_start|>"], ids["<|im_end|>"]]] = 0.0
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (finding,) = findings("auto")
    assert "<|im_start|>, <|im_end|> looks untrained" in finding.evidence
    assert (
        "leave [adapter] out" in finding.advice and "plain" not in finding.advice
    )  # which ends in <|im_end|>, too
