"""Models built from a recipe: their configuration, their size, and their first weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etude.errors import InputError
from etude.models.build import build, check_memory, choose_config, measure
from etude.models.families.family import NewModel
from etude.models.lora import add_adapter
from etude.models.parts import find_targets
from etude.models.pretrained import count_lora, inspect_model
from etude.recipe.schema import Recipe
from tests import bases, recipes
from tests.models.decoders import LLAMA

NEW = NewModel(vocab_size=61, seq_len=24, pad_id=0)
SCRATCH: dict[str, Callable[[Path], Recipe]] = {
    "labels": recipes.classification, "masked": recipes.masked, "seq2seq": recipes.seq2seq,
}  # fmt: skip


def tuned(base: Path, **changes: object) -> Recipe:
    return recipes.finetuning(base, base, {"adapter": {"rank": 2, "targets": ["q_proj"]}, **changes})


@pytest.mark.parametrize("kind", SCRATCH)
def test_the_size_of_a_new_model_is_that_of_its_modules(kind: str, tmp_path: Path) -> None:
    recipe = SCRATCH[kind](tmp_path / "rows.jsonl")
    config = choose_config(recipe, None, replace(NEW, labels=3 if kind == "labels" else 0))
    model, new = build(recipe, config, None, torch.float32)
    again, _ = build(recipe, config, None, torch.float32)
    size = measure(config, None, seq_len=24, adapter=0)
    assert size.trainable == size.parameters["total"] == sum(part.numel() for part in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters()))
    assert not new


def test_the_size_of_an_adapted_model_is_that_of_its_modules(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path)
    recipe, pretrained = tuned(base), inspect_model(base)
    config = choose_config(recipe, pretrained, NEW)
    model, _ = build(recipe, config, pretrained, torch.float32)
    assert recipe.adapter is not None
    add_adapter(model, dict.fromkeys(find_targets(model, ["q_proj"]), recipe.adapter), 1)
    size = measure(config, pretrained, seq_len=24, adapter=count_lora(pretrained, 2, ["q_proj"]))
    parameters = list(model.parameters())
    assert size.trainable == sum(part.numel() for part in parameters if part.requires_grad)
    assert size.parameters["total"] == sum(part.numel() for part in parameters)


def test_frozen_weights_have_the_dtype_they_are_computed_in_and_trained_ones_are_fp32(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path)
    pretrained = inspect_model(base)
    for recipe, dtype in ((tuned(base), torch.bfloat16), (tuned(base, adapter=None), torch.float32)):
        model, _ = build(recipe, pretrained.config, pretrained, torch.bfloat16)
        matrices = {part.dtype for name, part in model.named_parameters() if "norm" not in name}
        assert matrices == {dtype}


def test_a_sample_longer_than_the_base_reads_is_refused(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path)
    longest = inspect_model(base).config.longest
    with pytest.raises(InputError, match=rf"reads {longest} tokens at most; use {longest}"):
        choose_config(tuned(base, **{"train.seq_len": longest + 1}), inspect_model(base), NEW)


def test_several_tasks_over_a_decoder_are_refused(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path)
    with pytest.raises(InputError, match="no BERT, RoBERTa or their kin, which several tasks need"):
        choose_config(tuned(base), inspect_model(base), replace(NEW, tasks=(("kinds", 2),)))


def test_a_model_beyond_the_memory_is_refused_before_it_is_built() -> None:
    check_memory(LLAMA)
    with pytest.raises(InputError, match=r"GB; this machine has .* GB; use a smaller n_layer"):
        check_memory(replace(LLAMA, n_embd=2**20, n_ffn=2**22))
    with pytest.raises(InputError, match=r"10,001 blocks of width 48"):
        check_memory(replace(LLAMA, n_layer=10_001), 1e9)
