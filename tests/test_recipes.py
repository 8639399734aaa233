"""Every shipped recipe is valid, and trains at toy size."""

from pathlib import Path

import pytest

from etude.models.catalogue import decoder_config
from etude.models.cost import count_parameters
from etude.recipe.load import flatten, load_recipe
from etude.run import run_recipe
from etude.start import Options

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
TOY = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_kv_head": 2, "model.n_embd": 32, "model.n_ffn": 64,
    "model.head_dim": 16,
    "model.vocab_size": 512, "tokenizer.train_vocab_size": 300, "train.steps": 4, "train.seq_len": 32,
    "train.global_batch_size": 4, "train.devices": 1, "train.device": "cpu", "train.compile": False,
    "schedule.warmup_steps": 1, "evaluate.every_steps": 2, "evaluate.sample_tokens": 4, "evaluate.max_samples": 4,
    "checkpoint.every_steps": 2, "checkpoint.keep_at": [3], "records.log_every_steps": 2, "data.validation_ratio": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_trains_at_toy_size(
    path: Path, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = load_recipe(path)
    source = {"path": str(corpus)}
    toy = recipe.with_changes({**TOY, "data.train": [source]})
    run = run_recipe(toy, Options(runs=tmp_path / "runs")).run
    assert run.state == "finished"
    assert not [line for line in (run.path / "log.txt").read_text().splitlines() if "tracker" in line]


def test_the_300m_recipe_has_the_figures_of_its_story() -> None:
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "pretrain-300m"))
    values = flatten(recipe.to_dict())
    assert values["train.global_batch_size"] == 512 and values["optim.learning_rate"] * values[
        "schedule.min_lr_ratio"
    ] == pytest.approx(6e-5)
    counts = count_parameters(decoder_config(recipe.model, vocab_size=50_257, seq_len=recipe.train.seq_len))
    assert counts["total"] == 303_171_584 and counts["embedding"] == 51_463_168


def test_the_demo_source_is_found_without_network() -> None:
    from etude.cli.demo import shipped_recipe
    from etude.data.sources import list_files

    recipe = load_recipe(shipped_recipe("demo"))
    assert len(list_files(recipe.data.train[0])) > 400
