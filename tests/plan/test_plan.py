"""Plans: the model part alone, problems all at once, and the length of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from etude.errors import RecipeError
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.own import Own
from etude.plan import make_plan
from etude.plan.length import choose_length
from etude.plan.model import DataSizes, choose_model, context_of, count_adapter, find_base, measure_model
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests import bases
from tests.conftest import tiny

Make = Callable[..., Recipe]


def test_the_model_is_planned_without_data(tmp_path: Path) -> None:
    recipe = recipe_from(tiny(tmp_path / "not-there.jsonl"))
    sizes = DataSizes(vocab_size=300, tokens_per_sample=32.0)
    model = choose_model(recipe, None, sizes, Own())
    assert isinstance(model, DecoderConfig)
    size = measure_model(recipe, model, None, sizes, Own(), adapter=0)
    built = sum(parameter.numel() for parameter in Decoder(model).parameters())
    assert size.parameters["total"] == size.trainable == built


def test_a_base_and_its_adapter_are_planned_without_data(tmp_path: Path) -> None:
    folder = bases.write_qwen2(tmp_path / "base")
    changes = {"model": {"from": str(folder)}, "adapter": {"rank": 4, "targets": ["q_proj"]}, "tokenizer": {}}
    recipe = recipe_from(tiny(tmp_path / "not-there.jsonl", changes))
    base = find_base(recipe, Own())
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    queries = [module for name, module in theirs.named_modules() if name.endswith("q_proj")]
    adapter = count_adapter(recipe, base)
    assert adapter == sum(4 * (module.in_features + module.out_features) for module in queries)
    sizes = DataSizes(vocab_size=theirs.config.vocab_size, tokens_per_sample=32.0)
    model = choose_model(recipe, base, sizes, Own())
    size = measure_model(recipe, model, base, sizes, Own(), adapter=adapter)
    assert size.parameters["total"] == theirs.num_parameters() + adapter and size.trainable == adapter
    assert context_of(model, base) == theirs.config.max_position_embeddings


def test_problems_of_device_adapter_and_data_are_told_at_once(tmp_path: Path) -> None:
    changes = {
        "model": {"from": str(bases.write_qwen2(tmp_path / "base"))},
        "adapter": {"rank": 4, "targets": ["no_such_layer"]},
        "tokenizer": {}, "train.device": "mps" if not torch.backends.mps.is_available() else "cuda",
    }  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe_from(tiny(tmp_path / "not-there.jsonl", changes)))
    found = caught.value.problems
    assert len(found) == 3
    for word in ("train.device", "not-there.jsonl", "no_such_layer"):
        assert sum(word in problem for problem in found) == 1, found


def test_problems_of_prompts_and_of_the_metric_are_told_at_once(make_recipe: Make) -> None:
    changes = {"evaluate.prompts": ["def ", "total = left + right\n" * 40], "evaluate.metric": "f1"}
    with pytest.raises(RecipeError) as caught:
        make_plan(make_recipe(changes))
    prompt, metric = caught.value.problems
    assert "evaluate.prompts[1]" in prompt and 'evaluate.metric is "f1"' in metric


def test_the_steps_are_passes_over_the_samples_and_a_longer_warmup_is_refused(make_recipe: Make) -> None:
    plan = make_plan(make_recipe({"train.steps": None, "train.epochs": 3}))
    per_epoch = -(-len(plan.train) // 8)
    assert (plan.steps_per_epoch, plan.steps) == (per_epoch, 3 * per_epoch)
    late = make_recipe({"train.steps": None, "train.epochs": 1, "schedule.warmup_steps": per_epoch})
    with pytest.raises(RecipeError, match=f"this data gives {per_epoch} steps"):
        choose_length(late, plan.train, torch.device("cpu"))
