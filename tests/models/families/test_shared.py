"""Tensors of files held against the model that they are for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models.pretrained import inspect_model, load_pretrained
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
