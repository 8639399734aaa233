"""An estimate counts what the plan has, and refuses what no device can do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.estimate import estimate
from etude.gpus import find_gpu
from etude.plan.forecast import work_of_step
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.report.grades import Correction
from tests import bases, recipes

Make = Callable[..., Recipe]


def test_the_time_on_a_gpu_is_operations_over_its_rate(make_recipe: Make) -> None:
    made = estimate(make_recipe(), gpu=find_gpu("h100"), price=3.0)
    assert made.costs is not None and made.forecast is not None
    operations = made.plan.cost.operations(*work_of_step(made.plan))
    assert made.plan.precision == "fp32" and made.costs.step_seconds == pytest.approx(
        operations / (0.5 * 66.9e12)
    )
    assert made.cost == pytest.approx(3.0 * made.forecast.seconds / 3600)
    rows = dict(made.rows())
    assert rows["device"].startswith("NVIDIA H100 SXM, fp32") and "whitepaper" in rows["time"]
    low, high = made.forecast.interval
    assert low < made.forecast.seconds < high


def test_a_recipe_for_a_gpu_that_is_not_here_is_estimated(make_recipe: Make) -> None:
    made = estimate(make_recipe({"train.device": "cuda", "train.precision": "bf16"}), gpu=find_gpu("a100"))
    assert made.plan.device.type == "cuda" and made.plan.precision == "bf16"
    assert made.plan.micro_batch_size is None  # is found there


def test_steps_are_tried_where_all_is_here(make_recipe: Make) -> None:
    made = estimate(make_recipe())
    assert made.costs is not None and made.costs.tried > 0 and "tried here" in made.basis
    quick = estimate(make_recipe(), is_quick=True)
    assert quick.costs is not None and quick.costs.tried == 0 and "no step was to be tried" in quick.basis
    values = made.values()
    assert (
        values["checkpoint_bytes"] > 12 * made.plan.trainable
        and values["weights_bytes"] == 4 * made.plan.trainable
    )
    assert values["tokens_per_parameter"] == values["tokens"] / values["parameters"]["total"]


def test_a_rate_above_the_peak_is_refused(make_recipe: Make) -> None:
    gpu = find_gpu("h100")
    with pytest.raises(InputError, match=r"more than the 66\.9 of 1 device: NVIDIA H100 SXM") as refused:
        estimate(make_recipe(), gpu=gpu, tokens_per_second=1e12)
    most = 0.999 * float(str(refused.value).rpartition("at most ")[2].replace(",", ""))
    made = estimate(make_recipe(), gpu=gpu, tokens_per_second=most)
    assert made.costs is not None
    tokens, _ = work_of_step(made.plan)
    assert made.costs.step_seconds == pytest.approx(tokens / most)


def test_weights_that_are_not_here_are_no_obstacle(tmp_path: Path) -> None:
    rows, base = bases.write_instructions(tmp_path / "rows.jsonl", 30), bases.write_qwen2(tmp_path / "base")
    (base / "model.safetensors").unlink()
    made = estimate(recipes.finetuning(rows, base))
    assert "as the weights are not here" in made.basis and made.forecast is not None


def test_a_correction_is_applied_and_said(make_recipe: Make) -> None:
    made = estimate(make_recipe(), is_quick=True)
    corrected = made.corrected(Correction(4, {"seconds": 1.5}))
    assert made.forecast is not None and corrected.forecast is not None
    assert corrected.forecast.seconds == pytest.approx(1.5 * made.forecast.seconds, abs=1e-3)
    assert "corrected by the median error of 4 like runs: time x 1.50" in dict(corrected.rows())["time"]
    assert replace(made, costs=None, basis="does not fit").rows()[-1] == ("forecast", "does not fit")


def test_what_does_not_fit_is_said_with_the_change_that_helps(make_recipe: Make) -> None:
    recipe = make_recipe({"train.micro_batch_size": 8})
    free = estimate(recipe, is_quick=True).room
    assert free is not None and free.fits and free.memory.device_bytes > 0
    made = estimate(recipe, is_quick=True, memory=round(0.8 * free.memory.device_bytes))
    assert made.room is not None and not made.room.fits and made.room.fit is not None
    assert made.room.fit.changes["train.micro_batch_size"] < 8
    assert "does not fit into" in dict(made.rows())["room"]
    never = estimate(recipe, is_quick=True, memory=1000)
    assert never.room is not None and never.room.fit is None
    assert "whatever the micro-batch" in dict(never.rows())["room"]


def test_a_micro_batch_that_is_to_be_found_on_a_gpu_is_the_largest_that_fits(make_recipe: Make) -> None:
    recipe = make_recipe({"train.micro_batch_size": "auto", "train.device": "cuda"})
    gpu = find_gpu("l4")
    whole = estimate(recipe, gpu=gpu)
    assert whole.room is not None and whole.room.micro_batch_size == 8 and whole.room.fits
    less = estimate(recipe, gpu=gpu, memory=whole.room.memory.device_bytes - 1)
    assert less.room is not None
    assert less.room.micro_batch_size < 8 or not less.room.fits


def test_activations_computed_again_take_a_third_more_time_and_memory_is_that_of_the_trace(
    make_recipe: Make,
) -> None:
    plain, again = (
        estimate(make_recipe({"train.activation_checkpointing": value}), gpu=find_gpu("h100"))
        for value in (False, True)
    )
    assert plain.costs is not None and again.costs is not None
    assert again.costs.step_seconds == pytest.approx(4 / 3 * plain.costs.step_seconds)
    assert plain.forecast is not None and plain.room is not None
    assert plain.forecast.memory_bytes == plain.room.memory.device_bytes


def test_many_gpus_are_estimated_with_what_they_exchange(make_recipe: Make) -> None:
    changes = {"train.devices": 1024, "train.global_batch_size": 1024, "train.device": "cuda"}
    gpu = find_gpu("h100")
    made = estimate(assumed(make_recipe(changes)), gpu=gpu, rows=4096)
    assert made.traffic is not None and made.costs is not None and made.traffic.ranks == 1024
    usual = made.plan.cost.operations(*work_of_step(made.plan)) / 1024 / (0.5 * 66.9e12)
    assert made.costs.step_seconds == pytest.approx(usual + made.traffic.seconds)
    rows, values = dict(made.rows()), made.values()
    assert "Gb/s a GPU" in rows["traffic"] and "bounds" in rows["overlap"]
    none, full = (values["traffic"]["tokens_per_second"][each] for each in ("no_overlap", "full_overlap"))
    assert none < full <= 1024 * 32 / made.traffic.seconds
    low, high = made.costs.interval
    assert low * made.costs.step_seconds >= made.traffic.seconds and high > 1
    with pytest.raises(InputError, match=r"but the links take .* s for what 1,024 ranks exchange in it"):
        estimate(assumed(make_recipe(changes)), gpu=gpu, rows=4096, tokens_per_second=2 * full)


def test_what_is_too_large_for_a_gpu_is_sharded_and_its_evaluation_told(make_recipe: Make) -> None:
    changes = {"train.devices": 8, "train.device": "cuda"}
    whole = estimate(assumed(make_recipe(changes)), gpu=find_gpu("h100"), rows=4096)
    assert whole.plan.parallel.kind == "replicate" and "evaluation" not in dict(whole.rows())
    assert whole.room is not None
    held = 16 * whole.plan.trainable
    parts = estimate(assumed(make_recipe(changes)), gpu=find_gpu("h100"), rows=4096, memory=held)
    assert parts.plan.parallel.kind == "shard"
    assert "block by block, and each token of a text is a pass" in dict(parts.rows())["evaluation"]


def assumed(recipe: Recipe) -> Recipe:
    """The recipe with data that are not here, for as many rows as are asked for."""
    values = recipe.to_dict()
    values["data"]["train"] = [{"path": "not-here"}]
    values["model"]["vocab_size"] = 300
    return recipe_from(values)
