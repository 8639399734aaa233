"""Updates that are not those of the optimizer are named, and no update of it is."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from etude import session as sessions
from etude.engine import updates
from etude.engine.host import to_host
from etude.engine.optim import Optimizer
from etude.engine.updates import Updates
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_qwen2
from tests.objectives.sessions import begun, found
from tests.recipes import finetuning

Make = Callable[..., Recipe]
Patch = pytest.MonkeyPatch
EVERY = {"records.log_every_steps": 5, "train.steps": 20, "evaluate.every_steps": 20}


def before_updates(patch: Patch, change: Callable[[Optimizer, int], Any]) -> None:
    """Something is done before each update, by its number."""
    step, made = Optimizer.step, Counter[int]()  # the trace of a step has an optimizer of its own

    def changed(optimizer: Optimizer, *arguments: Any, **named: Any) -> None:
        made[id(optimizer)] += 1
        change(optimizer, made[id(optimizer)])
        step(optimizer, *arguments, **named)

    patch.setattr(Optimizer, "step", changed)


@pytest.mark.parametrize("kind", ["adamw", "adam", "muon"])
@pytest.mark.parametrize(("every", "log_every"), [(1, 5), (2, 4), (4, 5), (7, 10)])
def test_gradients_that_are_dropped_at_some_steps_are_named_at_the_next_log_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch, kind: str, every: int, log_every: int
) -> None:
    def drop(optimizer: Optimizer, number: int) -> None:
        for parameter in optimizer.parameters if number >= 3 and number % every == 0 else ():
            assert parameter.grad is not None
            parameter.grad.zero_()

    before_updates(monkeypatch, drop)
    recipe = make_recipe({**EVERY, "optim.kind": kind, "records.log_every_steps": log_every})
    broken = found(run_recipe(recipe, Options(runs=tmp_path)).run)
    first = next(number for number in range(3, 20) if number % every == 0)
    assert list(broken) == ["gradients_dropped"]
    assert broken["gradients_dropped"].step == -(-first // log_every) * log_every
    assert f"the gradient of step {first}" in broken["gradients_dropped"].evidence


def test_tensors_that_are_put_back_are_named_at_the_first_log_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    step = Optimizer.step

    def put_back(optimizer: Optimizer, *arguments: Any, **named: Any) -> None:
        kept = [(each, each.detach().clone()) for each in optimizer.parameters[4:6]]
        step(optimizer, *arguments, **named)
        for each, value in kept:
            each.data.copy_(value)

    monkeypatch.setattr(Optimizer, "step", put_back)
    broken = found(run_recipe(make_recipe(EVERY), Options(runs=tmp_path)).run)
    assert next(iter(broken)) == "tensor_not_stepped" and broken["tensor_not_stepped"].step == 5
    assert " of 24 trained tensors stood still in step 1, " in broken["tensor_not_stepped"].evidence


@pytest.mark.parametrize(("at", "named_at"), [(1, 5), (10, 10), (12, None)])
def test_weights_that_a_forward_pass_writes_are_named_where_a_step_is_looked_at(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch, at: int, named_at: int | None
) -> None:
    assemble = sessions.assemble

    def hooked(*arguments: Any) -> Any:
        state, new = assemble(*arguments)

        def write(module: nn.Module, given: Any) -> None:
            if module.training and state.step == at - 1:
                state.optimizer.parameters[2].data.mul_(1.01)

        state.model.register_forward_pre_hook(write)
        return state, new

    monkeypatch.setattr(sessions, "assemble", hooked)
    broken = found(run_recipe(make_recipe(EVERY), Options(runs=tmp_path)).run)
    assert {kind: (each.step, each.severity) for kind, each in broken.items()} == (
        {"update_wrong": (named_at, "warning")} if named_at else {}
    )


def test_weights_that_are_frozen_after_the_start_are_named(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    def freeze(optimizer: Optimizer, number: int) -> None:
        optimizer.parameters[3].requires_grad_(number < 7)

    before_updates(monkeypatch, freeze)
    broken = found(run_recipe(make_recipe(EVERY), Options(runs=tmp_path)).run)
    assert list(broken) == ["tensor_not_stepped"] and broken["tensor_not_stepped"].step == 10
    assert "frozen after the start" in broken["tensor_not_stepped"].what


class Table(nn.Module):
    """Tensors that most steps do not reach: rows of tables by the tokens that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.randn(512, 8) / 3 for _ in range(4))
        self.scaled = nn.Embedding(512, 8, max_norm=1.0)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        read = torch.stack([each[tokens] for each in self.tables]).mean(0) + self.scaled(tokens)
        scores: torch.Tensor = read @ self.tables[0].T
        return scores


def table_loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    scores, labels = model(batch.tokens).flatten(0, 1), batch.labels.flatten()
    return nn.functional.cross_entropy(scores, labels, reduction="sum"), labels.numel()


@pytest.mark.parametrize("changes", [{}, {"optim.weight_decay": 0.0}, {"optim.learning_rate": 1e-7}])
def test_rows_that_no_token_reads_and_weights_that_torch_rescales_are_no_fault(
    make_recipe: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    options = Options(runs=tmp_path, model=Table(), loss=table_loss)
    recipe = make_recipe({**EVERY, "train.global_batch_size": 1, "train.seq_len": 4, **changes})
    assert {"gradients_dropped", "update_wrong", "tensor_not_stepped"} & set(
        found(run_recipe(recipe, options).run)
    ) == set()


def test_a_step_that_was_skipped_moves_nothing_and_is_right(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    with begun(make_recipe(EVERY), tmp_path) as session:
        rules, kind = Updates(session.state), type(session.objective)
        steps, real = session.steps(), kind.loss_sum
        next(steps)
        rules.begin()
        rules.look()
        monkeypatch.setattr(kind, "loss_sum", lambda *given: (real(*given)[0] * torch.nan, real(*given)[1]))
        step = next(steps)
        rules.note(step)
        assert step.measured[4] == 1 and rules.end(to_host(rules.asked())) == ([], {})


def test_findings_are_told_once(make_recipe: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    def drop(optimizer: Optimizer, number: int) -> None:
        for parameter in optimizer.parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()

    before_updates(monkeypatch, drop)
    run = run_recipe(make_recipe(EVERY), Options(runs=tmp_path)).run
    told = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert [each.step for each in told if each.kind == "gradients_dropped"] == [5]


@pytest.mark.parametrize("followed", [3, 4, 5, 8])
@pytest.mark.parametrize("log_every", [1, 5])
def test_an_adapter_whose_gradients_are_nothing_at_first_is_no_fault(
    tmp_path: Path, monkeypatch: Patch, followed: int, log_every: int
) -> None:
    monkeypatch.setattr(updates, "_FOLLOWED", followed)
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_qwen2(tmp_path / "base")
    recipe = finetuning(rows, base, {**EVERY, "records.log_every_steps": log_every})
    broken = found(run_recipe(recipe, Options(runs=tmp_path / "runs")).run)
    assert not {"gradients_dropped", "update_wrong", "tensor_not_stepped"} & set(broken)
