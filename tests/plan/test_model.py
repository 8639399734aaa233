"""The model of a plan, counted where there are no data at all."""

from pathlib import Path

from transformers import AutoModelForCausalLM

from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.own import Own
from etude.plan.model import DataSizes, choose_model, context_of, count_adapter, find_base, measure_model
from etude.recipe.load import recipe_from
from tests import bases
from tests.recipes import tiny


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
