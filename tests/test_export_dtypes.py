"""The dtype of every tensor of an export, against the files of the base and PEFT's own merge."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.export import export
from etude.recipe.load import change, recipe_from
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests import bases

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def store_mixed(
    base: Path, *, matrices: torch.dtype, last: torch.dtype | None = None
) -> dict[str, torch.dtype]:
    """Write the weights of a base again: matrices in one dtype, the last by name in another, all else in
    fp32.
    """
    tensors = load_file(base / "model.safetensors")
    kinds = {name: matrices if tensor.ndim > 1 else FP32 for name, tensor in tensors.items()}
    if last is not None:
        kinds[max(name for name, tensor in tensors.items() if tensor.ndim > 1)] = last
    save_file(
        {name: tensor.to(kinds[name]) for name, tensor in tensors.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((base / "config.json").read_text())
    config.pop("dtype", None)
    (base / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    return kinds


def train(base: Path, rows: Path, adapter: dict[str, Any] | None, **train_keys: Any) -> Run:
    source: dict[str, Any] = {"path": str(rows)}
    if train_keys.get("objective") == "classification":
        source["label"] = "label"
    values: dict[str, Any] = {
        "name": "mixed",
        "model": {"from": str(base)},
        "data": {"train": [source], "validation": "none"},
        "train": {
            "steps": 2, "seq_len": 64, "global_batch_size": 4, "device": "cpu", "precision": "fp32",
            **train_keys,
        },
        "optim": {"learning_rate": 5e-2},
        "schedule": {"kind": "constant"},
    }  # fmt: skip
    changes = {} if adapter is None else {"adapter": adapter}
    return run_recipe(recipe_from(change(values, changes)), Options(runs=base.parent / "runs")).run


@pytest.mark.parametrize(("matrices", "last"), [(BF16, FP32), (FP16, None), (FP16, BF16), (FP32, BF16)])
def test_a_merged_model_has_the_dtypes_of_its_base_and_the_numbers_of_peft(
    matrices: torch.dtype, last: torch.dtype | None, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = bases.write_qwen2(tmp_path / "base")
    kinds = store_mixed(base, matrices=matrices, last=last)
    rows = bases.write_instructions(tmp_path / "rows.jsonl", 12)
    made = train(base, rows, {"rank": 2, "targets": "all-linear", "alpha": 8.0})
    out = export(f"{made.path}@last", "merged", tmp_path / "out")
    merged = load_file(out / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in merged.items()} == kinds
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == str(matrices).removeprefix("torch.") and "torch_dtype" not in config

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=FP32)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(kinds[name])
    theirs = (
        PeftModel.from_pretrained(model, str(made.checkpoints / "step-000002"))
        .merge_and_unload()
        .state_dict()
    )
    for name, tensor in merged.items():
        assert torch.equal(tensor, theirs[name]), name
    before = load_file(base / "model.safetensors")
    assert any(not torch.equal(merged[name], before[name]) for name in merged)


@pytest.mark.parametrize(
    ("family", "targets"), [("bert", ["query"]), ("t5", ["q"]), ("modernbert", ["Wqkv"])]
)
def test_a_merged_classifier_has_the_dtypes_of_a_bare_base_and_its_new_head_the_main_one(
    family: str, targets: list[str], tmp_path: Path
) -> None:
    write = {
        "bert": lambda folder: bases.write_encoder(folder, family="bert"),
        "t5": bases.write_t5,
        "modernbert": bases.write_modernbert,
    }[family]
    base, rows = write(tmp_path / "base"), bases.write_labelled(tmp_path / "rows.jsonl", 20)
    kinds = store_mixed(base, matrices=BF16)
    made = train(base, rows, {"rank": 2, "targets": targets}, objective="classification")
    out = export(f"{made.path}@last", "merged", tmp_path / "out")
    merged = load_file(out / "model.safetensors")
    for name, tensor in merged.items():
        known = [kind for given, kind in kinds.items() if name == given or name.endswith(f".{given}")]
        assert tensor.dtype == (known[0] if known else BF16), name
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_trained_whole_from_bf16_is_exported_in_fp32_and_says_so(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path / "base")
    store_mixed(base, matrices=BF16)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    made = train(base, bases.write_instructions(tmp_path / "rows.jsonl", 12), None)
    out = export(f"{made.path}@last", "hf", tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {FP32}
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "float32" and "torch_dtype" not in config
    shutil.rmtree(out)
