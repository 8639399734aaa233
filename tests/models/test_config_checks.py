"""One fact in two places of a config.json: refused where they differ, of every family, and taken where they
agree.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.config_checks import refuse_conflicts
from etude.models.pretrained import inspect_model, load_pretrained
from tests import bases
from tests.conftest import SHARED

WRITERS: dict[str, Callable[[Path], Any]] = {
    "qwen2": bases.write_qwen2, "llama": bases.write_llama, "gptj": bases.write_gptj,
    "gpt2": bases.write_gpt2, "roberta": bases.write_encoder, "t5": bases.write_t5,
    "modernbert": bases.write_modernbert,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / name) for name, write in WRITERS.items()}


def changed(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values | changes


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("qwen2", {"rope_parameters": YARN, "rope_scaling": YARN | {"factor": 2.0}}, "factor = 4.0 and"),
        ("qwen2", {"rope_parameters": YARN, "rope_scaling": {"type": "linear", "factor": 4.0}}, "keep one of the two"),
        ("llama", {"rope_parameters": YARN, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "keep one of"),
        ("llama", {"rope_scaling": YARN | {"type": "linear"}}, "rope_scaling.type = 'linear'"),
        ("llama", {"rope_theta": 5e5}, "rope_theta = 500000.0 and rope_parameters.rope_theta = 10000.0"),
        ("llama", {"rope_scaling": {"rope_type": "default", "rope_theta": 7.0}}, "rope_scaling.rope_theta = 7.0"),
        ("llama", {"n_embd": 64}, "hidden_size = 32 and n_embd = 64"),
        ("qwen2", {"num_layers": 3}, "num_hidden_layers = 2 and num_layers = 3"),
        ("qwen2", {"n_head_kv": 4}, "num_key_value_heads = 2 and n_head_kv = 4"),
        ("llama", {"n_inner": 100}, "intermediate_size = 64 and n_inner = 100"),
        ("llama", {"attention_bias": False, "qkv_bias": True}, "qkv_bias = True"),
        ("llama", {"dtype": "float32", "torch_dtype": "bfloat16"}, "torch_dtype = 'bfloat16' and dtype = 'float32'"),
        ("llama", {"text_config": {"tie_word_embeddings": True}}, "text_config.tie_word_embeddings = True"),
        ("llama", {"architectures": ["Qwen2ForCausalLM"]}, "which is another family"),
        ("gpt2", {"hidden_size": 64}, "hidden_size = 64 and n_embd = 32"),
        ("gpt2", {"num_hidden_layers": 3}, "num_hidden_layers = 3 and n_layer = 2"),
        ("gptj", {"num_attention_heads": 4}, "num_attention_heads = 4 and n_head = 2"),
        ("gptj", {"max_position_embeddings": 64}, "n_positions = 256"),
        ("roberta", {"d_model": 64}, "hidden_size = 32 and d_model = 64"),
        ("roberta", {"architectures": ["BertModel"]}, "another family"),
        ("t5", {"hidden_size": 64}, "hidden_size = 64 and d_model = 32"),
        ("t5", {"n_layer": 3}, "num_layers = 2 and n_layer = 3"),
        ("modernbert", {"n_embd": 64}, "n_embd = 64"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True,
                   "sliding_window": 6, "max_window_layers": 0}, "layer_types and max_window_layers"),
        ("qwen2", {"layer_types": ["full_attention"] * 2, "sliding_window_pattern": 2}, "sliding_window_pattern"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_two_places_that_differ_are_refused(
    family: str, changes: dict[str, Any], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for path in folders[family].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(changed(folders[family], changes)))
    objective = {"roberta": "masked", "modernbert": "classification"}.get(family)
    with pytest.raises(InputError, match=said) as caught:
        inspect_model(tmp_path, objective)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))


def test_what_transformers_writes_does_not_disagree_with_itself(tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as families

    names = {
        **families.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        **families.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    written = 0
    for family in (
        "moss_transcribe_diarize",
        "modernvbert",
    ):  # hold two models that tie differently by default
        names.pop(family, None)
    for family, name in names.items():
        try:
            config = AutoConfig.for_model(family)
        except Exception:  # some families have no default of their own
            continue
        values = json.loads(config.to_json_string(use_diff=False))
        refuse_conflicts(values | {"architectures": [name] if isinstance(name, str) else list(name)})
        written += 1
    assert written > 80


def test_two_places_that_agree_are_one(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["qwen2"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    same = {
        "rope_scaling": {**YARN, "type": "yarn"},
        "rope_parameters": YARN,
        "rope_theta": 1e4,
        "n_embd": 32,
    }
    values = changed(folders["qwen2"], {**same, "torch_dtype": "torch.float32"})
    del values["n_embd"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason is None
    theirs: Any = __import__("transformers").AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ours, tokens = (
        load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval(),
        torch.arange(3, 90)[None],
    )
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (ours.logits(tokens) - expected).abs().max() < 1e-5 * expected.abs().max()  # type: ignore[operator]


def test_a_key_twice_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["llama"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("{", '{"rms_norm_eps": 0.5,', 1))
    with pytest.raises(InputError, match="the key 'rms_norm_eps' twice"):
        inspect_model(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases are not here")
def test_the_case_of_two_rotary_scalings_is_refused() -> None:
    with pytest.raises(InputError, match=r"= 64 and rope_scaling\.original_max_position_embeddings = 128"):
        inspect_model(SHARED / "cases" / "c20_rope_conflict" / "model")
