"""Every shipped recipe is valid, and trains at toy size."""

from pathlib import Path
from typing import Any

import pytest

from etude.models.catalogue import decoder_config
from etude.models.cost import count_parameters
from etude.models.families.encoder import ENCODER
from etude.models.families.family import NewModel
from etude.recipe.load import flatten, load_recipe, with_changes
from etude.recipe.schema import Recipe
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_gptj, write_instructions, write_labelled, write_pairs, write_qwen2, write_t5

FILES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))}
RECIPES = {name: path for name, path in FILES.items() if "[[tiers]]" not in path.read_text()}
TOY = {
    "train.steps": 4, "train.epochs": None, "train.seq_len": 32, "train.global_batch_size": 4,
    "train.devices": 1, "train.device": "cpu", "train.compile": False, "schedule.warmup_steps": 1,
    "evaluate.every_steps": 2, "evaluate.every_epochs": None, "evaluate.sample_tokens": 4,
    "evaluate.max_samples": 4, "checkpoint.every_steps": 2, "checkpoint.keep_at": [3],
    "records.log_every_steps": 2, "data.validation_ratio": 0.2,
}  # fmt: skip
TOY_DECODER = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_kv_head": 2, "model.n_embd": 32, "model.n_ffn": 64,
    "model.head_dim": 16, "model.vocab_size": 512, "tokenizer.train_vocab_size": 300,
}  # fmt: skip
TOY_ENCODER = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 32, "tokenizer.train_vocab_size": 300,
    "data.deduplicate": "off",
}  # fmt: skip
TOY_TUNING = {"train.seq_len": 96, "evaluate.answers": 2, "evaluate.answer_tokens": 4}
BASES = {"qwen-coder-codealpaca": write_qwen2, "gpt-j-lora": write_gptj, "gpt-j-lora-v1": write_gptj}


def toy(recipe: Recipe, folder: Path, corpus: Path) -> Recipe:
    """The recipe with the smallest model of its kind, on little data."""
    changes: dict[str, Any] = {**TOY, **TOY_DECODER, "data.train": [{"path": str(corpus)}]}
    if recipe.model.from_ is not None and recipe.train.objective == "causal":
        rows = write_instructions(folder / "rows.jsonl")
        base = BASES[recipe.name](folder / "base") if recipe.name in BASES else demo_model(folder, corpus)
        changes = {**TOY, **TOY_TUNING, "model.from": str(base), "data.train": [{"path": str(rows)}]}
    if recipe.train.objective == "classification":
        rows = write_labelled(folder / "rows.jsonl")
        changes = {**TOY, **TOY_ENCODER, "data.train": [{"path": str(rows), "label": "label"}]}
    if recipe.train.objective == "seq2seq":
        rows = write_pairs(folder / "rows.jsonl", 40)
        source = {"path": str(rows), "field": "source", "target": "target"}
        changes = {
            **TOY, **TOY_TUNING, "model.from": str(write_t5(folder / "t5")), "data.train": [source],
            "data.validation": None, "data.test": [], "train.target_len": 32,
        }  # fmt: skip
    return with_changes(recipe, changes)


def demo_model(folder: Path, corpus: Path) -> Path:
    """What `etude demo` and `etude export` leave, at toy size."""
    from etude.export import export

    demo = with_changes(toy(load_recipe(RECIPES["demo"]), folder, corpus), {"train.seq_len": 96})
    run = run_recipe(demo, Options(runs=folder / "runs")).run
    return export(str(run.path), "hf", folder / "base")


@pytest.mark.parametrize("path", RECIPES.values(), ids=RECIPES)
def test_a_shipped_recipe_trains_at_toy_size(
    path: Path, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = run_recipe(toy(load_recipe(path), tmp_path, corpus), Options(runs=tmp_path / "runs")).run
    assert run.state == "finished"
    assert not [line for line in (run.path / "log.txt").read_text().splitlines() if "tracker" in line]


def test_the_300m_recipe_has_the_figures_of_its_story() -> None:
    recipe = load_recipe(RECIPES["pretrain-300m"])
    values = flatten(recipe.to_dict())
    assert values["train.global_batch_size"] == 512 and values["optim.learning_rate"] * values[
        "schedule.min_lr_ratio"
    ] == pytest.approx(6e-5)
    counts = count_parameters(decoder_config(recipe.model, vocab_size=50_257, seq_len=recipe.train.seq_len))
    assert counts["total"] == 303_171_584 and counts["embedding"] == 51_463_168


def test_the_laptop_recipe_has_the_figures_of_its_story() -> None:
    from etude.models.catalogue import STORIES

    recipe = load_recipe(RECIPES["qwen-coder-codealpaca"])
    assert recipe.adapter is not None and recipe.model.from_ is not None
    story = STORIES[recipe.model.from_]
    assert story.count_lora(recipe.adapter.rank, recipe.adapter.targets) == 2_179_072
    assert story.count_lora(16, recipe.adapter.targets) == 4_358_144
    assert recipe.optim.learning_rate == 2e-4 and recipe.schedule.kind == "linear"


def test_the_second_gpt_j_recipe_changes_what_its_story_changed() -> None:
    first, second = (
        flatten(load_recipe(RECIPES[name]).to_dict()) for name in ("gpt-j-lora-v1", "gpt-j-lora")
    )
    expected = {
        "optim.learning_rate": (2e-5, 5e-6), "optim.weight_decay": (0.0, 0.1), "adapter.rank": (8, 16),
        "adapter.dropout": (0.0, 0.1), "evaluate.every_epochs": (1, None),
        "evaluate.every_steps": (None, 500), "evaluate.patience": (None, 3),
    }  # fmt: skip
    assert {key: (first.get(key), second.get(key)) for key in expected} == expected
    assert all(first[key] == second[key] for key in ("model.from", "data.train.0.path", "train.epochs"))


def test_the_code_encoder_has_the_figures_of_its_story() -> None:
    recipe = load_recipe(RECIPES["code-encoder"])
    values = flatten(recipe.to_dict())
    expected = {
        "train.epochs": 10, "train.global_batch_size": 32, "train.max_grad_norm": 1.0, "optim.kind": "adam",
        "optim.learning_rate": 1e-3, "model.n_embd": 512, "model.n_head": 8, "model.n_layer": 6,
    }  # fmt: skip
    assert {key: values[key] for key in expected} == expected
    assert ENCODER.from_recipe is not None
    config = ENCODER.from_recipe(recipe.model, NewModel(vocab_size=8192, seq_len=512, pad_id=0, labels=2))
    block = 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 4 * 512
    outside = (512 + 2) * 512 + 2 * 512  # positions, types, norm
    head = (512 * 512 + 512) + (2 * 512 + 2)  # pooler, labels
    total = 8192 * 512 + 6 * block + outside + head
    assert ENCODER.measure(config, 2, 512, 0)[0] == {
        "embedding": 8192 * 512, "rest": 6 * block + outside, "head": head, "total": total
    }  # fmt: skip


def test_the_demo_source_is_found_without_network() -> None:
    from etude.cli.recipes import shipped_recipe
    from etude.data.listing import list_files

    recipe = load_recipe(shipped_recipe("demo"))
    assert len(list_files(recipe.data.train[0])) > 400
