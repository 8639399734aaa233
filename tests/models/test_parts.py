"""Parts of a model by name."""

from pathlib import Path

import pytest
import torch

from etude.errors import InputError
from etude.models.parts import find_targets
from etude.models.pretrained import count_lora, inspect_model, load_pretrained
from tests.bases import SMALL, write_model
from tests.models.folders import THEIRS


def test_targets_are_found_by_name_and_counted_without_weights(tmp_path: Path) -> None:
    write_model(tmp_path / "qwen2", "qwen2", SMALL)
    write_model(tmp_path / "gpt2", *THEIRS["gpt2"])
    qwen2, gpt2 = inspect_model(tmp_path / "qwen2"), inspect_model(tmp_path / "gpt2")
    model = load_pretrained(qwen2, dtype=torch.float32, dropout=0.0)[0]
    names = find_targets(model, ["q_proj", "layers.1.mlp.up_proj"])
    assert names == [
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj",
    ]  # fmt: skip
    assert len(find_targets(model, "all-linear")) == 14
    assert count_lora(qwen2, 4, ["q_proj", "v_proj"]) == 2 * 4 * (32 + 32 + 32 + 16)
    assert count_lora(qwen2, 4, ["v_proj"], dora=True) == 2 * (4 * (32 + 16) + 16)
    assert count_lora(gpt2, 4, ["c_attn"]) == 2 * 4 * (32 + 96)
    with pytest.raises(InputError, match=r"'q_prj'; did you mean q_proj\? there are down_proj, gate_proj"):
        find_targets(model, ["q_prj"])
