"""Weights that are not those of their file are named at the start, and every load as it is passes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from etude import Training, session
from etude.assemble import assemble
from etude.audit.loaded import find_not_loaded
from etude.engine.world import World
from etude.models.families.family import Pretrained
from etude.models.lora import add_adapter
from etude.models.parts import find_targets
from etude.models.pretrained import inspect_model, load_pretrained
from etude.plan import make_plan
from etude.recipe.load import with_changes
from etude.recipe.model import Adapter
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests import bases, recipes
from tests.models.folders import THEIRS

Make = Callable[..., Recipe]
WRITERS: dict[str, Callable[[Path], Any]] = {
    "qwen2": bases.write_qwen2,
    "qwen2 in bf16": lambda folder: bases.write_qwen2(folder, dtype=torch.bfloat16),
    "llama in fp16": lambda folder: bases.write_llama(folder, dtype=torch.float16),
    "roberta": bases.write_encoder,
    "bert": lambda folder: bases.write_encoder(folder, family="bert"),
    "masked roberta": lambda folder: bases.write_encoder(folder, masked=True),
    "t5": bases.write_t5,
    "gated t5": lambda folder: bases.write_t5(folder, gated=True),
    "modernbert": bases.write_modernbert,
    **{name: lambda folder, name=name: bases.write_model(folder, *THEIRS[name]) for name in THEIRS},
}


CLASSIFIERS = [name for name in WRITERS if name not in THEIRS and "masked" not in name]


@pytest.mark.parametrize("has_adapter", [False, True], ids=["whole", "adapter"])
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "modernbert"])
def test_a_model_as_it_is_loaded_is_that_of_its_file(name: str, has_adapter: bool, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    pretrained = inspect_model(tmp_path, "masked" if "bert" in name else None)
    dtype = torch.bfloat16 if has_adapter else torch.float32
    model, new = load_pretrained(pretrained, dtype=dtype, dropout=0.0)
    if has_adapter:
        add_adapter(model, dict.fromkeys(find_targets(model, "all-linear"), Adapter(rank=2)), 1)
    judge(model, pretrained, new)


@pytest.mark.parametrize("has_adapter", [False, True], ids=["whole", "adapter"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_with_a_new_head_is_that_of_its_file(
    name: str, has_adapter: bool, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / "base")
    recipe = recipes.classification(bases.write_labelled(tmp_path / "rows.jsonl"), tmp_path / "base")
    changes = {"train.precision": "bf16", "adapter.rank": 2, "adapter.targets": "all-linear"}
    plan = make_plan(with_changes(recipe, changes if has_adapter else {}))
    state, new = assemble(plan, Options(), World(plan.device))
    assert new and plan.pretrained
    judge(state.model, plan.pretrained, new)


def judge(model: nn.Module, base: Pretrained, new: list[str]) -> None:
    assert list(find_not_loaded(model, base, None, new)) == []
    redraw(model)
    (finding,) = find_not_loaded(model, base, None, new)
    assert finding.kind == "weights_not_loaded" and str(base.path) in finding.evidence
    assert int(finding.evidence.split(" more, of ")[1].split()[0]) > 10  # tensors that are looked at


@torch.no_grad()
def redraw(model: nn.Module) -> None:
    for each in model.parameters():
        each.normal_(0, 0.02)


def test_one_row_that_was_drawn_anew_is_seen_and_another_order_is_not(tmp_path: Path) -> None:
    pretrained = inspect_model(bases.write_qwen2(tmp_path))
    model, new = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)
    weight = model.get_parameter("model.layers.1.mlp.up_proj.weight")
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert list(find_not_loaded(model, pretrained, None, new)) == []
    with torch.no_grad():
        weight[0, 0] += 1e-3
    (finding,) = find_not_loaded(model, pretrained, None, new)
    assert finding.evidence.endswith(": model.layers.1.mlp.up_proj.weight, of 26 tensors")


def alarms(run: Run) -> list[tuple[int, str]]:
    events = [entry.event for entry in run.ledger().entries]
    return [(each.step, each.kind) for each in events if isinstance(each, Finding) and each.kind]


def drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are drawn anew once the model is put together, and again behind a checkpoint."""
    assemble, restore = session.assemble, session.Session.restore

    def assembled(*given: Any) -> Any:
        state, new = assemble(*given)
        redraw(state.model)
        return state, new

    def restored(self: session.Session, path: Path) -> None:
        restore(self, path)
        redraw(self.state.model)

    monkeypatch.setattr(session, "assemble", assembled)
    monkeypatch.setattr(session.Session, "restore", restored)


def test_weights_of_a_run_a_model_and_a_checkpoint_that_are_drawn_anew_are_named(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_recipe(make_recipe({"train.steps": 4}), Options(runs=tmp_path / "first")).run
    options = Options(runs=tmp_path / "next", weights=str(first.path))
    assert "weights_not_loaded" not in {kind for _, kind in alarms(run_recipe(make_recipe(), options).run)}
    stopped = Training(make_recipe({"seed": 3}), Options(runs=tmp_path / "stopped"))
    for step in stopped:
        if step.number == 5:
            break
    drawn_again(monkeypatch)
    options = Options(runs=tmp_path / "again", weights=str(first.path))
    assert alarms(run_recipe(make_recipe(), options).run)[0] == (0, "weights_not_loaded")
    base = recipes.finetuning(
        bases.write_instructions(tmp_path / "rows.jsonl"), bases.write_qwen2(tmp_path / "base")
    )
    tuned = run_recipe(with_changes(base, {"adapter.rank": 2}), Options(runs=tmp_path / "tuned")).run
    assert alarms(tuned)[0] == (0, "weights_not_loaded")
    run = run_recipe(make_recipe({"seed": 3}), Options(runs=tmp_path / "stopped")).run
    assert (5, "weights_not_loaded") in alarms(run)
