"""Pretrained decoders against transformers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.decoder import Decoder
from etude.models.pretrained import extend_context, inspect_model, load_pretrained
from etude.recipe.model import RopeScaling
from tests.bases import SMALL, write_model
from tests.models.folders import change, draw_tokens

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}


OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 mixed windows": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3 biased": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "llama": ("llama", {"head_dim": 12}),
    "llama biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 scaling": ("llama", {"rope_parameters": LLAMA3}),
    "yarn scaling": ("qwen2", {"rope_parameters": YARN}),
    "yarn with mscale": ("llama", {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}}),
    "linear scaling": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "mistral": ("mistral", {"sliding_window": 7}),
}


@pytest.mark.parametrize(("model_type", "changes"), OURS.values(), ids=OURS)
def test_logits_of_a_loaded_decoder_are_those_of_transformers(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = write_model(tmp_path, model_type, SMALL | changes)
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason is None
    model = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval()
    assert isinstance(model, Decoder)
    tokens = draw_tokens()
    with torch.no_grad():
        ours, expected = model.logits(tokens), theirs(tokens).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (
        pretrained.parameters["total"] == total == sum(parameter.numel() for parameter in theirs.parameters())
    )


@pytest.mark.parametrize(
    ("model_type", "ignored"),
    [
        ("llama", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
        (
            "llama",
            {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["sliding_attention"] * 2},
        ),
        ("mistral", {"sliding_window": None, "attention_bias": True}),
        ("qwen2", {"attention_bias": False, "quantization_config": None, "unheard_of": None}),
    ],
)
def test_keys_that_a_family_does_not_read_change_nothing(
    model_type: str, ignored: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    write_model(tmp_path, model_type, SMALL | {key: None for key in ignored if key == "sliding_window"})
    change(tmp_path, ignored)
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason is None
    model = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval()
    assert isinstance(model, Decoder)
    with torch.no_grad():
        ours = model.logits(draw_tokens())
        expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(draw_tokens()).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_decoder_is_loaded_without_transformers(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2", SMALL)
    code = (
        "import sys, torch; from pathlib import Path; from etude.models.pretrained import *; "
        f"load_pretrained(inspect_model(Path({str(tmp_path)!r})), dtype=torch.float32, dropout=0.0)[0]; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parts_of_a_model_and_half_precision_load(tmp_path: Path) -> None:
    theirs = write_model(tmp_path, "qwen2", SMALL, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    model = load_pretrained(inspect_model(tmp_path), dtype=torch.bfloat16, dropout=0.0)[0]
    wanted = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        kept = torch.float32 if name.endswith("norm.weight") else torch.bfloat16
        assert tensor.dtype == kept and torch.equal(tensor, wanted[name].to(kept))


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_longer_context_is_that_of_transformers(kind: str, model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_model(tmp_path, model_type, SMALL | {"max_position_embeddings": 32})
    scaling = RopeScaling.model_validate({"kind": kind, "factor": 4.0, "original_context": 32})
    extended = extend_context(inspect_model(tmp_path), scaling)
    model = load_pretrained(extended, dtype=torch.float32, dropout=0.0)[0].eval()
    assert isinstance(model, Decoder) and model.config.longest == 128
    (tmp_path / "config.json").write_text(json.dumps(extended.hf_config))
    tokens = torch.randint(60, (2, 128), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = model.logits(tokens)
        expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(tokens).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    again = inspect_model(tmp_path)
    assert again.config == extended.config == extend_context(again, scaling).config


@pytest.mark.parametrize(
    ("changes", "original", "says"),
    [
        ({}, 4096, "original_context is 4,096, but config.json says that the model reads"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            16,
            "scales already .linear by 2.; leave it out",
        ),
    ],
)
def test_a_context_that_config_json_contradicts_is_refused(
    changes: dict[str, Any], original: int, says: str, tmp_path: Path
) -> None:
    write_model(tmp_path, "llama", SMALL)
    change(tmp_path, changes | ({"rope_parameters": None} if changes else {}))
    with pytest.raises(InputError, match=says):
        extend_context(
            inspect_model(tmp_path), RopeScaling(kind="yarn", factor=2.0, original_context=original)
        )
