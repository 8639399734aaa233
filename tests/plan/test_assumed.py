"""A plan without data or weights has the sizes of the models, and of rows that fill train.seq_len."""

from pathlib import Path
from typing import Any

import pytest

from etude.data.loader import longest_batch
from etude.errors import InputError
from etude.models.pretrained import count_lora
from etude.plan import make_plan
from etude.plan.assumed import plan_without
from etude.plan.forecast import work_of_step
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from tests import bases, recipes

FIELDS = {"classification": {"label": "label"}, "seq2seq": {"target": "target"}}


def recipe_of(model: str, objective: str = "causal", changes: dict[str, Any] | None = None) -> Recipe:
    train = {"epochs": 3, "seq_len": 128, "global_batch_size": 32, "objective": objective, "device": "cpu"}
    source = {"path": "/nowhere/rows.jsonl", **FIELDS.get(objective, {})}
    data = {"train": [source], "sample": "document" if objective == "masked" else "row"}
    recipe = recipe_from({"name": "x", "model": {"from": model}, "data": data, "train": train})
    return with_changes(recipe, changes or {})


@pytest.mark.parametrize(
    ("model", "objective", "total"),
    [
        ("Qwen/Qwen2.5-Coder-7B", "causal", 7_615_616_512),
        ("EleutherAI/gpt-j-6b", "causal", 6_050_882_784),
        ("openai-community/gpt2", "causal", 124_439_808),
        ("microsoft/codebert-base", "classification", 124_647_170),
        ("microsoft/codebert-base", "masked", 124_697_433),
        ("Salesforce/codet5p-770m", "seq2seq", 737_639_424),
    ],
)
def test_a_published_model_needs_neither_weights_nor_data(model: str, objective: str, total: int) -> None:
    plan, assumed = plan_without(recipe_of(model, objective), 1000)
    assert plan.parameters["total"] == plan.trainable == total
    assert plan.steps == 3 * 32 and len(plan.train) == 1000
    assert assumed[0].startswith("/nowhere/rows.jsonl is not here, so 1,000 rows of 128 tokens")


@pytest.mark.parametrize("rank", [4, 8, 16, 64])
def test_adapters_are_rank_times_inputs_and_outputs(rank: int) -> None:
    layers = 28 * (2 * (3584 + 3584) + 2 * (3584 + 512))
    outputs = 28 * (2 * 3584 + 2 * 512)
    for dora in (False, True):
        changes = {"adapter": {"rank": rank, "dora": dora}}
        plan, _ = plan_without(recipe_of("Qwen/Qwen2.5-Coder-7B", changes=changes), 1000)
        assert plan.trainable == rank * layers + dora * outputs
        assert plan.pretrained is not None
        assert plan.trainable == count_lora(
            plan.pretrained, rank, ["q_proj", "k_proj", "v_proj", "o_proj"], dora=dora
        )


def test_a_folder_with_config_json_alone_has_the_sizes_of_the_whole(tmp_path: Path) -> None:
    rows, whole = bases.write_instructions(tmp_path / "rows.jsonl", 30), bases.write_qwen2(tmp_path / "base")
    recipe = recipes.finetuning(rows, whole)
    known = make_plan(recipe)
    (whole / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        make_plan(recipe)
    plan, assumed = plan_without(recipe)
    assert not assumed and plan.parameters == known.parameters and plan.cost == known.cost
    assert plan.steps == known.steps and work_of_step(plan) == work_of_step(known)
    (whole / "tokenizer.json").unlink()
    plan, assumed = plan_without(recipe)
    assert plan.parameters == known.parameters and "no tokenizer of" in assumed[0]


def test_assumed_rows_are_full_and_make_batches() -> None:
    for objective, scored in (("causal", 128), ("masked", 19), ("classification", 0), ("seq2seq", 128)):
        model = {"causal": "Qwen/Qwen2.5-Coder-0.5B", "seq2seq": "Salesforce/codet5-small"}
        plan, _ = plan_without(recipe_of(model.get(objective, "microsoft/codebert-base"), objective), 64)
        batch = longest_batch(plan.train, 4, True)  # type: ignore[arg-type]
        assert batch.tokens.size == 4 * 128, objective
        if scored:
            assert (batch.labels != -100).sum() == 4 * scored, objective
        else:
            assert batch.classes is not None and batch.classes.shape == (4, 2)


@pytest.mark.parametrize("objective", ["causal", "masked", "seq2seq"])
def test_assumed_rows_take_no_memory(objective: str) -> None:
    model = {"causal": "Qwen/Qwen2.5-Coder-0.5B", "masked": "microsoft/codebert-base"}
    plan, _ = plan_without(recipe_of(model.get(objective, "Salesforce/codet5-small"), objective), 2**40)
    small, _ = plan_without(recipe_of(model.get(objective, "Salesforce/codet5-small"), objective), 64)
    assert len(plan.train) == 2**40 and work_of_step(plan) == work_of_step(small)
    assert longest_batch(plan.train, 4, True).tokens.size == 4 * 128  # type: ignore[arg-type]


def test_more_rows_with_labels_than_can_be_assumed_are_refused() -> None:
    with pytest.raises(InputError, match="give fewer --rows"):
        plan_without(recipe_of("microsoft/codebert-base", "classification"), 2**40)


def test_what_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --rows N"):
        plan_without(recipe_of("openai-community/gpt2"))
    steps = {"train.epochs": None, "train.steps": 7}
    recipe = recipe_of("openai-community/gpt2")
    values = recipe.to_dict()
    values["train"] = {key: value for key, value in values["train"].items() if key != "epochs"} | {"steps": 7}
    assert plan_without(recipe_from(values))[0].steps == 7, steps
    rows = bases.write_labelled(tmp_path / "rows.jsonl", 60)
    with pytest.raises(InputError, match="--rows is for"):
        plan_without(recipes.classification(rows), 100)
    with pytest.raises(InputError, match="is not on this machine"):
        plan_without(recipe_of("nobody/nothing"), 10)
