"""Tensors that are one in a model and two in its files: taken where they are equal, refused where they
differ.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models.families.family import Pretrained
from etude.models.pretrained import inspect_model, load_pretrained
from tests import bases

Write = Callable[[Path], Path]


def masked(folder: Path) -> Path:
    return bases.write_encoder(folder, masked=True)


def masked_bert(folder: Path) -> Path:
    from transformers import BertForMaskedLM

    bases.write_encoder(folder, family="bert")
    BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    return bases.write_encoder(folder, family="bert")


# A family, what it is read for, a tensor of its files, and another name that means the same place.
TWINS: list[tuple[Write, str, str, str]] = [
    (bases.write_t5, "seq2seq", "shared.weight", "encoder.embed_tokens.weight"),
    (bases.write_t5, "seq2seq", "shared.weight", "decoder.embed_tokens.weight"),
    (bases.write_t5, "classification", "shared.weight", "decoder.embed_tokens.weight"),
    (bases.write_t5, "classification", "shared.weight", "transformer.shared.weight"),
    (bases.write_qwen2, "causal", "model.embed_tokens.weight", "lm_head.weight"),
    (bases.write_qwen2, "classification", "model.norm.weight", "norm.weight"),
    (bases.write_gpt2, "causal", "transformer.wte.weight", "lm_head.weight"),
    (bases.write_gpt2, "causal", "transformer.wte.weight", "wte.weight"),
    (masked, "masked", "lm_head.bias", "lm_head.decoder.bias"),
    (masked, "masked", "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
    (
        masked,
        "classification",
        "roberta.embeddings.word_embeddings.weight",
        "embeddings.word_embeddings.weight",
    ),
    (masked_bert, "masked", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    (masked_bert, "masked", "bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma"),
    (bert, "classification", "embeddings.LayerNorm.bias", "embeddings.LayerNorm.beta"),
    (bases.write_modernbert, "classification", "final_norm.weight", "model.final_norm.weight"),
]


def add_twin(base: Path, name: str, twin: str, *, differs: bool) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors[twin] = tensors[name] + 0.5 if differs else tensors[name].clone()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def look(base: Path, objective: str) -> Pretrained:
    found = inspect_model(base, objective)
    if found.reason and objective == "classification":
        settings: dict[str, Any] = {"dtype": torch.float32, "dropout": 0.0, "seed": 1}
        load_pretrained(replace(found, labels=3, label_names=(), kept_labels=0), **settings)
    return found


@pytest.mark.parametrize(("write", "objective", "name", "twin"), TWINS, ids=[f"{t[1]} {t[3]}" for t in TWINS])
def test_two_tensors_of_one_place_are_refused_if_they_differ(
    write: Write, objective: str, name: str, twin: str, tmp_path: Path
) -> None:
    base = write(tmp_path / "base")
    add_twin(base, name, twin, differs=False)
    look(base, objective)
    add_twin(base, name, twin, differs=True)
    with pytest.raises(
        InputError, match=r"are one tensor of this model, but|but it is another matrix"
    ) as caught:
        look(base, objective)
    assert "\n" not in str(caught.value)


def test_an_equal_head_in_another_dtype_is_the_embedding(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    short = tensors["model.embed_tokens.weight"].bfloat16()
    tensors |= {"model.embed_tokens.weight": short.float(), "lm_head.weight": short}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert inspect_model(base, "causal").reason is None
