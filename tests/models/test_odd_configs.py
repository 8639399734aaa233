"""Each key of a config.json replaced by an odd value: refused in one line, or a model of the same shapes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.pretrained import inspect_model, load_pretrained
from tests import bases

WRITERS: dict[str, Callable[[Path], Path]] = {
    "qwen2": bases.write_qwen2, "llama": bases.write_llama, "gpt2": bases.write_gpt2, "t5": bases.write_t5,
}  # fmt: skip
ODD: list[Any] = [
    "2",
    1.5,
    True,
    -1,
    0,
    2**40,
    10**6,
    None,
    [],
    {"a": 1},
    "x" * 2000,
    float("inf"),
    float("nan"),
]


@pytest.mark.parametrize("family", WRITERS)
def test_an_odd_value_is_refused_in_one_line_or_changes_no_shape(family: str, tmp_path: Path) -> None:
    folder = WRITERS[family](tmp_path)
    values = json.loads((folder / "config.json").read_text())
    wanted = {name: part.shape for name, part in load(folder).named_parameters()}
    refused = 0
    for key in values:
        for odd in ODD:
            (folder / "config.json").write_text(json.dumps(values | {key: odd}))
            try:
                assert {name: part.shape for name, part in load(folder).named_parameters()} == wanted, (
                    key,
                    odd,
                )
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 260 + len(str(folder)), (
                    key,
                    odd,
                    str(error),
                )
    assert refused > len(values)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "t5", "encoder", "modernbert"])
def test_a_dropout_of_all_and_a_number_that_is_nan_are_refused_for_every_family(
    family: str, tmp_path: Path
) -> None:
    folder = {**WRITERS, "encoder": bases.write_encoder, "modernbert": bases.write_modernbert}[family](
        tmp_path
    )
    values = json.loads((folder / "config.json").read_text())
    objective = {"t5": "seq2seq", "encoder": "classification", "modernbert": "classification"}.get(
        family, "causal"
    )
    shares = [key for key in values if "drop" in key or key.endswith(("eps", "epsilon"))]
    assert shares
    for key, odd in [
        *((key, odd) for key in shares for odd in (1, 1.5, -0.1)),
        *((key, float("nan")) for key in values),
    ]:
        (folder / "config.json").write_text(json.dumps(values | {key: odd}))
        with pytest.raises(InputError, match=rf"config\.json: {key} is "):
            inspect_model(folder, objective)


def load(folder: Path) -> torch.nn.Module:
    return load_pretrained(inspect_model(folder), dtype=torch.float32, dropout=0.0)[0]
