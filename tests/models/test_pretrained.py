"""A config.json that no own family has runs through transformers, and is said; a wrong value is refused."""

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
from tests.bases import SMALL, write_model
from tests.models.folders import THEIRS, change

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


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, changes)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_weights_stored_in_half_precision_become_what_is_asked(
    stored: torch.dtype, family: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "exact", *(("qwen2", SMALL) if family == "qwen2" else THEIRS["gpt2"]))
    model.to(stored).save_pretrained(tmp_path)
    loaded = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=0.0)[0]
    wanted = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, wanted[name].float()), name


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle_instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04canary")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "model.safetensors is not a safetensors file, or is damaged"),
        (_pickle_instead, "etude import"),
        (_config(auto_map={"AutoModelForCausalLM": "canary.Canary"}), "auto_map"),
        (_config(hidden_size=64), "config.json says"),
        (_config(num_hidden_layers=3, layer_types=None), "lacks model.layers.2"),
        (_config(num_hidden_layers=1, layer_types=None), "has model.layers.1"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (_config(num_hidden_layers=1_000_000, layer_types=None), "is 1000000, but the files hold 27 tensors"),
        (_config(vocab_size=10**30), "cannot"),
        (_config(rope_parameters={"rope_type": [1]}), "cannot"),
        (_config(rope_parameters={"rope_type": "yarn", "factor": "4"}), "cannot"),
        (_config(layer_types=3), "cannot"),
        (_config(tie_word_embeddings=1), "cannot"),
        (_config(model_type=["qwen2"]), "cannot"),
        (_config(quantization_config={"quant_method": "gptq"}), "quantised"),
        (_config(model_type="t5", architectures=None), "does not predict the next token"),
        (_config(model_type="no-such"), "cannot read config.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(
    damage: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "qwen2", SMALL)
    canary = tmp_path / "ran"
    (tmp_path / "canary.py").write_text(f"open({str(canary)!r}, 'w')\nclass Canary: pass\n")
    damage(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        inspect_model(tmp_path, "causal")
    assert "\n" not in str(caught.value) and not canary.exists()
