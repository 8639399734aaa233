"""Parts of a model by name."""

from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.parts import (
    find_targets,
    head_modules,
    keep_labels,
    label_tensors,
    linear_shape,
    require_finite,
)
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


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bert": {}, "roberta": {}, "qwen2": {}, "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2},
    "modernbert": {"pad_token_id": 0}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip


def classifier(family: str, labels: int) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(family, **{**SMALL, **CLASSIFIERS[family]}, num_labels=labels)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_tensors_of_labels_are_those_that_change_with_their_number(family: str) -> None:
    three, five = ({n: p.shape for n, p in classifier(family, k).named_parameters()} for k in (3, 5))
    assert label_tensors(classifier(family, 3)) == [name for name in three if three[name] != five[name]]


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_head_is_all_that_the_body_does_not_have_and_the_pooler(family: str) -> None:
    model = classifier(family, 3)
    heads = tuple(f"{name}." for name in head_modules(model))
    expected = [
        name
        for name, _ in model.named_parameters()
        if not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name
    ]
    assert [name for name, _ in model.named_parameters() if name.startswith(heads)] == expected
    assert head_modules(model.base_model) == []


def test_rows_of_kept_labels_are_those_of_the_file() -> None:
    given, drawn = torch.arange(6.0).view(3, 2), torch.full((4, 2), -1.0)
    assert keep_labels("score", given, drawn, theirs=3, kept=2)[:, 0].tolist() == [0, 2, -1, -1]
    assert keep_labels("score", given, drawn, theirs=3, kept=0) is drawn
    with pytest.raises(InputError, match=r"score is \[3, 2\], but config.json says \[5, 2\]; copy"):
        keep_labels("score", given, drawn, theirs=5, kept=2)


def test_the_shape_of_a_transposed_layer_is_that_of_its_product() -> None:
    from transformers.pytorch_utils import Conv1D

    for layer in (torch.nn.Linear(3, 5), Conv1D(5, 3)):
        assert linear_shape(layer) == (layer(torch.zeros(1, 3)).shape[1], 3)


def test_a_weight_that_is_not_finite_is_named_with_its_dtype() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).bfloat16()
    require_finite(model, "the model")
    with torch.no_grad():
        model[1].bias[0] = torch.nan
    with pytest.raises(InputError, match=r"the model: 1.bias holds NaN or infinity in bfloat16"):
        require_finite(model, "the model")
