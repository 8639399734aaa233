"""Windows by layer and longer contexts, from a recipe to a folder that transformers loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from etude.errors import InputError
from etude.export import load_model
from etude.own import Own
from etude.plan.model import find_base
from etude.recipe.load import load_recipe
from etude.recipe.schema import Recipe
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_gpt2, write_instructions, write_llama, write_qwen2, write_t5
from tests.models.folders import change
from tests.recipes import finetuning, seq2seq


def assert_transformers_agree(folder: Path, vocabulary: int, length: int) -> nn.Module:
    """The model in a folder has the logits that transformers computes from it; returns theirs."""
    from transformers import AutoModelForCausalLM

    ours: Any = load_model(folder, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, expected = ours.logits(tokens), theirs(tokens).logits
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    return theirs


def test_windows_by_layer_train_and_load_in_transformers(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    changes = {"model.layer_window": [6, 0], "model.n_layer": 4, "train.steps": 4}
    run = run_recipe(make_recipe(changes), Options(runs=tmp_path / "runs")).run
    theirs: Any = assert_transformers_agree(run.checkpoints / "step-000004", 300, 32)
    assert theirs.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert theirs.config.sliding_window == 6
    resolved = load_recipe(run.path / "resolved.toml").model
    assert (resolved.layer_window, resolved.sliding_window) == ([6, 0], None)


@pytest.mark.parametrize("write", [write_qwen2, write_llama])
def test_a_model_trained_with_a_longer_context_loads_in_transformers(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    base = change(write(tmp_path / "base"), {"max_position_embeddings": 32})
    scaling = {"kind": "yarn", "factor": 3.0, "original_context": 32}
    recipe = finetuning(
        write_instructions(tmp_path / "rows.jsonl"), base, {"model.rope_scaling": scaling, "train.steps": 2}
    )
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    theirs: Any = assert_transformers_agree(run.checkpoints / "step-000002", 300, 96)
    assert theirs.config.max_position_embeddings == 96


@pytest.mark.parametrize("write", [write_gpt2, write_t5])
def test_a_family_without_rotary_positions_of_ours_is_not_extended(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    make = seq2seq if write is write_t5 else finetuning
    scaling = {"kind": "linear", "factor": 2.0, "original_context": 32}
    recipe = make(tmp_path / "rows.jsonl", write(tmp_path / "base"), {"model.rope_scaling": scaling})
    with pytest.raises(InputError, match="rope_scaling is for Qwen3, Qwen2, Mistral and Llama"):
        find_base(recipe, Own())
