"""Tensors of files held against the model that they are for."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models.families import shared
from etude.models.families.family import Facts, Files
from etude.models.pretrained import inspect_model, load_pretrained
from tests import bases
from tests.bases import SMALL, write_model
from tests.models.folders import THEIRS, change


def test_weights_that_the_model_would_not_use_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "gpt2", *THEIRS["gpt2"])
    bare = load_file(tmp_path / "gpt2" / "model.safetensors")
    change(tmp_path / "gpt2", {"n_layer": 1})
    for prefix in ("transformer.", ""):
        tensors = {prefix + name.removeprefix("transformer."): tensor for name, tensor in bare.items()}
        save_file(tensors, tmp_path / "gpt2" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=rf"has {prefix}h\.1\..*unlike its config.json"):
            load_pretrained(inspect_model(tmp_path / "gpt2"), dtype=torch.float32, dropout=0.0)[0]
    write_model(tmp_path / "qwen2", "qwen2", SMALL | {"tie_word_embeddings": True})
    file = tmp_path / "qwen2" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    inspect_model(tmp_path / "qwen2")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lm_head\.weight is the embedding .* but it is another matrix"):
        inspect_model(tmp_path / "qwen2")


def test_a_classifiers_config_is_read_by_transformers_with_its_labels_and_dtype(tmp_path: Path) -> None:
    from transformers import AutoConfig

    base = bases.write_qwen2(tmp_path / "base")
    change(base, {"torch_dtype": "bfloat16", "dtype": "bfloat16"})
    facts = Facts(label_names=("safe", "not safe"), multi=True, bos_id=None, eos_id=2)
    values = shared.describe_pretrained(inspect_model(base, "classification"), facts)
    (tmp_path / "config.json").write_text(json.dumps(values))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert (theirs.id2label, theirs.label2id) == ({0: "safe", 1: "not safe"}, {"safe": 0, "not safe": 1})
    assert theirs.problem_type == "multi_label_classification" and theirs.dtype == torch.float32


def test_a_lost_an_added_and_a_reshaped_tensor_are_named(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    right = {"0.weight": (3, 2), "0.bias": (3,)}
    cases: dict[str, dict[str, tuple[int, ...]]] = {
        "lacks 0.bias, unlike": {"0.weight": (3, 2)}, "has 1.bias, unlike": right | {"1.bias": (1,)},
        r"0.bias is \[4\], but config.json says \[3\]": right | {"0.bias": (4,)},
    }  # fmt: skip
    for said, shapes in cases.items():
        with pytest.raises(InputError, match=said):
            shared.check_shapes(files_of(tmp_path, shapes), model, tied=False)
    tied = right | {"lm_head.weight": (3, 2), "rotary_emb.inv_freq": (1,)}
    shared.check_shapes(files_of(tmp_path, tied), model, tied=True)
    with pytest.raises(InputError, match=r"has lm_head\.weight"):
        shared.check_shapes(files_of(tmp_path, tied), model, tied=False)


def files_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> Files:
    return Files(path=path, values={}, shapes=shapes, objective="causal")
