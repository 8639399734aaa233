"""A config.json that no own family has runs through transformers, and is said; a wrong value is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.families.foreign import FOREIGN
from etude.models.families.table import family_of
from etude.models.pretrained import inspect_model, load_pretrained, meta_model
from tests import bases

Write = Callable[[Path], Path]
WRONG: list[tuple[Write, str, dict[str, Any], str]] = [
    (bases.write_encoder, "classification", {"pad_token_id": -1}, "pad_token_id is -1; expected a whole"),
    (bases.write_encoder, "classification", {"pad_token_id": "1"}, "pad_token_id is '1'; expected a whole"),
    (bases.write_encoder, "classification", {"hidden_act": 5}, "hidden_act is 5"),
    (bases.write_t5, "classification", {"decoder_start_token_id": -3}, "decoder_start_token_id is -3"),
    (bases.write_t5, "classification", {"feed_forward_proj": 7}, "feed_forward_proj is 7; expected a name"),
    (bases.write_qwen2, "causal", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small'; expected a number"),
    (bases.write_qwen2, "causal", {"tie_word_embeddings": "yes"}, "expected true or false"),
    (bases.write_qwen2, "causal", {"num_key_value_heads": 3}, "n_kv_head is 3, which does not divide"),
    (bases.write_qwen2, "classification", {"use_sliding_window": 1}, "expected true or false"),
    (bases.write_llama, "causal", {"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "at least 1"),
    (bases.write_llama, "classification", {"attention_bias": "no"}, "expected true or false"),
]
ELSEWHERE: list[tuple[Write, str, dict[str, Any], str]] = [
    (bases.write_encoder, "classification", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
    (bases.write_qwen2, "causal", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    (bases.write_llama, "causal", {"a_new_key": 1}, "unknown key 'a_new_key'"),
    (bases.write_gpt2, "causal", {}, "model_type is 'gpt2'"),
]


def change(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(("write", "objective", "changes", "said"), WRONG, ids=[str(row[2]) for row in WRONG])
def test_a_wrong_value_for_an_own_family_is_refused(
    write: Write, objective: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = change(write(tmp_path / "base"), changes)
    with pytest.raises(InputError, match=said) as caught:
        inspect_model(folder, objective)
    message = str(caught.value)
    assert (
        f"{folder}/config.json: " in message
        and "\n" not in message
        and len(message) <= 300 + len(str(folder))
    )


@pytest.mark.parametrize(
    ("write", "objective", "changes", "said"), ELSEWHERE, ids=[str(row[2]) for row in ELSEWHERE]
)
def test_a_model_that_no_own_family_has_runs_through_transformers_and_is_said(
    write: Write, objective: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found = inspect_model(change(write(tmp_path / "base"), changes), objective)
    assert family_of(found.config) is FOREIGN
    assert (
        found.reason is not None
        and found.reason.startswith("runs through transformers, as")
        and said in found.reason
    )


@pytest.mark.parametrize("write", [bases.write_qwen2, bases.write_t5, bases.write_gpt2])
def test_the_modules_without_memory_are_those_of_the_model(write: Write, tmp_path: Path) -> None:
    found = inspect_model(write(tmp_path))
    model, new = load_pretrained(found, dtype=torch.float32, dropout=0.0)
    shapes = {name: part.shape for name, part in model.named_parameters()}
    empty = dict(meta_model(found).named_parameters())
    assert {name: part.shape for name, part in empty.items()} == shapes and not new
    assert all(part.is_meta for part in empty.values())
    assert found.parameters["total"] == sum(part.numel() for part in model.parameters())
