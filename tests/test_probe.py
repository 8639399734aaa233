"""A few steps are tried in another process; what they cost, or that they do not fit, is the answer."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from etude import probe as module
from etude.plan import make_plan
from etude.plan.forecast import Costs
from etude.probe import probe
from etude.recipe.schema import Recipe
from tests import bases, recipes

Make = Callable[..., Recipe]


def files_of(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_steps_and_texts_are_tried_and_nothing_is_written(tmp_path: Path) -> None:
    rows, base = bases.write_instructions(tmp_path / "rows.jsonl", 30), bases.write_qwen2(tmp_path / "base")
    plan = make_plan(recipes.finetuning(rows, base, {"evaluate.answers": 2, "adapter": {"rank": 2}}))
    before = files_of(tmp_path)
    probed = probe(plan)
    assert files_of(tmp_path) == before
    assert probed.costs is not None
    costs = probed.costs
    assert min(costs.step_seconds, costs.sample_seconds, costs.token_seconds, costs.memory_bytes) > 0
    assert costs.tried > 0 and costs.start_seconds > 0 and 0.0 < costs.ready_seconds != 3.0
    assert costs.interval[0] < 1 < costs.interval[1]
    assert probed.basis == f"by {costs.tried} steps tried here"


def test_a_step_that_takes_too_long_is_estimated_by_arithmetic(make_recipe: Make) -> None:
    probed = probe(make_plan(make_recipe()), limit_seconds=0.0)
    assert probed.costs is not None and probed.costs.step_seconds > 0
    assert probed.note == "by arithmetic, as no step was done within 0 s"


def test_too_little_memory_is_an_answer(
    make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"train.seq_len": 64, "train.global_batch_size": 1024, "train.micro_batch_size": 1024}
    recipe = make_recipe({**changes, "model.n_embd": 256, "model.n_ffn": 4096})
    monkeypatch.setattr(
        module.psutil, "virtual_memory", lambda: SimpleNamespace(available=200 << 20, total=8 << 30)
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(recipe.to_dict())))
    module._main()
    known = {
        key: value for line in capsys.readouterr().out.splitlines() for key, value in json.loads(line).items()
    }
    assert known["no_room"] == 1
    said = module._judge(make_plan(recipe), known, code=0, is_over=False, limit=20).basis
    assert said.startswith("does not fit into the memory of this machine; use a smaller micro_batch_size")


@pytest.mark.parametrize(
    ("code", "is_over", "says"),
    [
        (-9, False, "does not fit"),
        (1, False, "none: the steps that were tried failed"),
        (-9, True, "tried for 20 s only"),
    ],
)
def test_the_end_of_the_process_tells_what_happened(
    code: int, is_over: bool, says: str, make_recipe: Make
) -> None:
    known = {"rate": 1e9, **({"step_seconds": 5.0, "memory_bytes": 3e8} if is_over else {})}
    probed = module._judge(make_plan(make_recipe()), known, code, is_over, 20)
    assert probed.basis.startswith(says) and ("tried for 20 s only" in probed.basis) == is_over
    assert (probed.costs is None) == (not is_over)
    if probed.costs is not None:
        assert isinstance(probed.costs, Costs) and probed.costs.step_seconds == 5.0
