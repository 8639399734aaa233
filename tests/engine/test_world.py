"""What runs ask of a device: mps has no float64, so no tensor of it may reach one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from etude.records.events import Finding
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_labelled, write_pairs


class NoDouble(TorchFunctionMode):
    """Fails where a float64 tensor is made on a device, or moved to one, that is named by an object as etude
    does.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*args, *(kwargs or {}).values()]
        result = function(*args, **(kwargs or {}))
        if any(isinstance(value, torch.device) for value in given) and isinstance(result, torch.Tensor):
            assert result.dtype != torch.float64, f"{function.__name__} brings float64 to a device"
        return result


KINDS: dict[str, dict[str, Any]] = {
    "causal": {"evaluate.prompts": ["def "], "evaluate.sample_tokens": 4},
    "seq2seq": {
        "model": {"kind": "encoder-decoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "seq2seq",
        "data.train": [{"path": "pairs.jsonl", "field": "source", "target": "target"}], "evaluate.answers": 2,
        "evaluate.answer_tokens": 4,
    },
    "classification": {
        "model": {"kind": "encoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "classification", "data.train": [{"path": "labelled.jsonl", "label": "label"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_float64_reaches_the_device(tmp_path: Path, make_recipe: Callable[..., Any], kind: str) -> None:
    files = {
        "pairs.jsonl": write_pairs(tmp_path / "pairs.jsonl", 40),
        "labelled.jsonl": write_labelled(tmp_path / "labelled.jsonl", 40),
    }
    changes = dict(KINDS[kind])
    if "data.train" in changes:
        changes["data.train"] = [{**row, "path": str(files[row["path"]])} for row in changes["data.train"]]
    recipe = make_recipe({**changes, "train.steps": 3, "evaluate.every_steps": 3})
    with NoDouble():
        run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert run.state == "finished"
    found = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert not [finding for finding in found if "failed" in finding.what]
