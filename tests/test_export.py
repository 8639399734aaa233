"""Exports: what other tools load from them, what they refuse, and that they are whole or not there."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude import durable
from etude.errors import InputError, StorageError
from etude.evaluate.generate import generate
from etude.export import export, find_folder, load_model, open_tokenizer
from etude.recipe.load import change, recipe_from
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_llama, write_qwen2

Train = Callable[..., Run]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    """Where the runs of this file lie; prepared data goes into the cache of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        yield tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    rows = write_instructions(folder / "rows.jsonl")

    def train(base: Path, changes: dict[str, Any] | None = None) -> Run:
        values = {
            "name": "tuned",
            "model": {"from": str(base)},
            "adapter": {"rank": 4, "alpha": 8.0},
            "data": {"train": [{"path": str(rows)}], "validation_ratio": 0.2},
            "train": {
                "steps": 6,
                "seq_len": 96,
                "global_batch_size": 4,
                "device": "cpu",
                "precision": "fp32",
            },
            "optim": {"learning_rate": 1e-2},
            "evaluate": {"every_steps": 3},
            "checkpoint": {"every_steps": 3},
            "records": {"log_every_steps": 3, "title": "A <b>tuned</b> model"},
        }
        return run_recipe(recipe_from(change(values, changes or {})), Options(runs=folder / "runs")).run

    return train


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return write_qwen2(folder / "qwen2")


@pytest.fixture(scope="module")
def run(train: Train, base: Path) -> Run:
    return train(base)


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens).logits
    return logits


def load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


TOKENS = torch.arange(5, 45).reshape(2, 20)


def test_a_merged_export_answers_token_for_token_as_the_run_does(run: Run, tmp_path: Path) -> None:
    out = export(str(run.path), "merged", tmp_path / "out")
    prompts = [[7, 8, 9, 10], [30, 31, 32, 33]]
    ours = generate(
        load_model(find_folder(str(run.path), tmp_path), dtype=torch.float32),
        prompts,
        max_tokens=24,
        end_ids=(),
    )
    output = load(out).generate(torch.tensor(prompts), max_new_tokens=24, min_new_tokens=24, do_sample=False)
    assert [entry.ids for entry in ours] == output[:, 4:].tolist()


@pytest.mark.parametrize("changes", [{}, {"adapter.dora": True}, {"adapter.rank_stabilized": True}], ids=str)
def test_peft_and_transformers_see_the_same_logits(
    changes: dict[str, Any], train: Train, base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    run = train(base, {**changes, "train.steps": 3})
    adapted = PeftModel.from_pretrained(
        load(base), export(f"{run.path}@last", "peft", tmp_path / "peft")
    ).eval()
    merged = load(export(f"{run.path}@last", "merged", tmp_path / "merged"))
    expected = logits_of(adapted, TOKENS)
    assert (expected - logits_of(load(base), TOKENS)).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(merged, TOKENS), expected, atol=2e-5, rtol=1e-4)


def test_merging_adds_scaled_products_and_leaves_the_rest_bit_for_bit(
    train: Train, folder: Path, tmp_path: Path
) -> None:
    base = write_llama(folder / "llama-bf16", dtype=torch.bfloat16)
    run = train(base, {"adapter.targets": ["q_proj", "down_proj"], "train.steps": 3})
    before = load_file(base / "model.safetensors")
    after = load_file(export(str(run.path), "merged", tmp_path / "out") / "model.safetensors")
    adapter = load_file(find_folder(str(run.path), tmp_path) / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.bfloat16
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            product = adapter[f"{stem}.lora_B.weight"].float() @ adapter[f"{stem}.lora_A.weight"].float()
            tensor = (tensor.float() + 8.0 / 4 * product).bfloat16()
        assert torch.equal(after[name], tensor), name


def test_a_full_run_is_exported_as_it_is(train: Train, base: Path, tmp_path: Path) -> None:
    run = train(base, {"adapter": None, "train.steps": 3})
    out = export(f"{run.path}@step-3", "hf", tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == (
        run.checkpoints / "step-000003/model.safetensors"
    ).read_bytes()
    ours = load_model(out, dtype=torch.float32)
    torch.testing.assert_close(logits_of(load(out), TOKENS), ours.logits(TOKENS), atol=1e-5, rtol=1e-4)  # type: ignore[operator]


def test_an_export_holds_no_state_of_the_run_and_names_what_ends_an_answer(run: Run, tmp_path: Path) -> None:
    out = export(str(run.path), "merged", tmp_path / "out")
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    } <= names
    assert not names & {"state.json", "manifest.json", "optimizer.safetensors", "adapter_config.json"}
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [open_tokenizer(out).eos_id]


def test_the_card_has_the_figures_of_the_journal(run: Run, tmp_path: Path) -> None:
    from etude.report.history import read_history

    card = (export(f"{run.path}@last", "peft", tmp_path / "out") / "README.md").read_text()
    history = read_history(run)
    last = history.evaluations[-1]
    assert "step 6 (this model) |" in card and f"| {last.loss:.3f} |" in card
    assert f"{sum(step.targets for step in history.steps):,}" in card
    attempt = history.attempts[-1]
    assert f"{attempt.trainable:,} were trained" in card
    assert durable.sha256_file(run.path / "journal.jsonl") in card
    assert "<b>" not in card and str(run.recipe.model.from_) not in card
    assert card.startswith('---\nlibrary_name: "peft"\n')


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ("", "hf", "--to merged"),
        ("", "gguf", "peft, merged or hf"),
        ("@step-5", "peft", "no checkpoint step-000005"),
        ("@first", "peft", "no checkpoint first"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    given: str, kind: str, says: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as refused:
        export(f"{run.path}{given}", kind, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_not_touched_and_an_empty_one_is_filled(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(str(run.path), "peft", tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="is there already"):
        export(str(run.path), "merged", tmp_path / "out")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_full_disk_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    with durable.faults(durable.FaultPlan()) as plan:
        export(str(run.path), "merged", tmp_path / "whole")
    for at in range(0, len(plan.calls), 7):
        with durable.faults(durable.FaultPlan(at=at, error=errno.ENOSPC)), pytest.raises(StorageError):
            export(str(run.path), "merged", tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["whole"], plan.calls[at]


def test_an_adapter_is_not_put_on_another_base(train: Train, folder: Path, tmp_path: Path) -> None:
    base = write_qwen2(folder / "changed")
    run = train(base, {"train.steps": 3})
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="other weights"):
        export(str(run.path), "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()
