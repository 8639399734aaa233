"""The watch of a run that goes on: what it records, what follows, and that it changes no weight."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from etude import Options, Training, logits
from etude.errors import FaultError, RecipeError
from etude.recipe.course import Change, Course
from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe, Watch
from etude.records.events import Control, Finding, Step
from etude.records.store import Run, create_run, list_runs
from etude.run_watch import RunWatch

Make = Callable[..., Recipe]


def with_keys(recipe: Recipe, **keys: Any) -> Recipe:
    return recipe_from(
        change(recipe.to_dict(), {name.replace("__", "."): value for name, value in keys.items()})
    )


def found(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def bits(run: Run, step: int) -> bytes:
    return (run.checkpoints / f"step-{step:06d}" / "model.safetensors").read_bytes()


def plain_loss(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    said, keep = logits(model, batch), batch.labels != -100
    return torch.nn.functional.cross_entropy(
        said[keep].float(), batch.labels[keep], reduction="sum"
    ), keep.sum()


def fragile_loss(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """NaN once a weight of the embedding is beyond 0.15, as rates too high make it."""
    losses, count = plain_loss(model, batch)
    is_broken = model.get_parameter("model.embed_tokens.weight").detach().abs().max() > 0.15
    return losses * torch.where(is_broken, math.nan, 1.0), count


def train(recipe: Recipe, runs: Path, **options: Any) -> Run:
    training = Training(recipe, Options(runs=runs, **options))
    for _ in training:
        pass
    return training.run


def fast(make_recipe: Make, policy: str) -> Recipe:
    return make_recipe({
        "watch.policy": policy, "optim.learning_rate": 2e-2, "schedule.kind": "constant", "train.steps": 40,
        "records.log_every_steps": 1, "evaluate.every_steps": 40,
    })  # fmt: skip


@pytest.mark.parametrize("policy", ["off", "warn", "recover"])
def test_the_watch_changes_no_weight(policy: str, make_recipe: Make, tmp_path: Path) -> None:
    run, plain = (
        train(make_recipe({"watch.policy": policy}), tmp_path),
        train(make_recipe(), tmp_path / "plain"),
    )
    assert bits(run, 12) == bits(plain, 12)
    assert [each.loss for each in found(run, Step)] == [each.loss for each in found(plain, Step)]


def test_a_run_that_learns_nothing_any_more_warns_stops_or_recovers(
    make_recipe: Make, tmp_path: Path
) -> None:
    warned = train(fast(make_recipe, "warn"), tmp_path / "warn", loss=fragile_loss)
    lost = [each.step for each in found(warned, Step) if each.skipped]
    (error,) = [
        each for each in found(warned, Finding) if each.kind == "skipped_steps" and each.severity == "error"
    ]
    assert error.window == [lost[0], lost[9]] and len(lost) == 41 - lost[0]
    with pytest.raises(FaultError, match="nothing is learnt any more, since step"):
        train(fast(make_recipe, "stop"), tmp_path / "stop", loss=fragile_loss)
    (stopped,) = list_runs(tmp_path / "stop")
    assert found(stopped, Step)[-1].step == lost[9] and stopped.state == "failed"
    assert bits(stopped, lost[9]) == bits(warned, 40)  # skipped steps change nothing


def test_a_run_goes_back_before_the_fault_and_on_with_a_lower_rate(make_recipe: Make, tmp_path: Path) -> None:
    def broken_until_it_goes_back(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        runs = list_runs(tmp_path)
        is_back = any(each.action == "back" for run in runs for each in found(run, Control))
        return (plain_loss if is_back else fragile_loss)(model, batch)

    recovered = train(fast(make_recipe, "recover"), tmp_path, loss=broken_until_it_goes_back)
    steps = [entry.event for entry in recovered.ledger().rework if isinstance(entry.event, Step)]
    lost = [step.step for step in steps if step.skipped]
    (back,) = [each for each in found(recovered, Control) if each.action == "back"]
    good = 4 * ((lost[0] - 1) // 4)
    assert (back.request, back.from_step) == ("watch", good)
    (known,) = [each for each in found(recovered, Finding) if each.kind == "rate_too_high"]
    assert known.changes["optim.learning_rate"] == 4.9e-3  # 0.3 of it would be 6e-3
    assert back.changes == {"optim.learning_rate": 4.9e-3}
    rates = [each.learning_rate for each in found(recovered, Step)]
    assert rates[:good] == [2e-2] * good and rates[good] == pytest.approx(4.9e-3) and len(rates) == 40
    assert not found(recovered, Step)[-1].skipped and recovered.state == "finished"


def test_a_run_recovers_as_often_as_it_may(make_recipe: Make, tmp_path: Path) -> None:
    def always_broken(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        losses, count = fragile_loss(model, batch)
        return losses * (math.nan if model.training else 1.0), count

    recipe = with_keys(fast(make_recipe, "recover"), watch__recoveries=2)
    with pytest.raises(FaultError, match="recoveries is 2"):
        train(recipe, tmp_path, loss=always_broken)
    (run,) = list_runs(tmp_path)
    backs = [entry.event for entry in run.ledger().all if isinstance(entry.event, Control)]
    rates = [each.changes["optim.learning_rate"] for each in backs if each.action == "back"]
    assert rates == [pytest.approx(4.9e-3), pytest.approx(0.3 * 4.9e-3)]  # known before step 0, then lower


def test_what_is_to_be_ignored_is_not_recorded_also_of_tests_and_rules(
    make_recipe: Make, tmp_path: Path
) -> None:
    kinds = ("rate_too_high", "skipped_steps")
    recipe = with_keys(fast(make_recipe, "stop"), train__steps=30, evaluate__every_steps=30)
    with pytest.raises(FaultError, match="nothing is learnt"):
        train(recipe, tmp_path / "told", loss=fragile_loss)
    told = [each.kind for each in found(list_runs(tmp_path / "told")[0], Finding)]
    run = train(with_keys(recipe, watch__ignore=list(kinds)), tmp_path / "ignored", loss=fragile_loss)
    assert {*kinds} <= {*told} and not {*kinds} & {each.kind for each in found(run, Finding)}


def test_a_run_whose_steps_all_were_skipped_is_not_finished(make_recipe: Make, tmp_path: Path) -> None:
    def broken(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        losses, count = fragile_loss(model, batch)
        return losses * math.nan, count

    with pytest.raises(FaultError, match="no step had a finite loss"):
        train(make_recipe(), tmp_path, loss=broken)
    assert list_runs(tmp_path)[0].state == "failed"


def test_a_run_whose_loss_was_always_0_is_not_finished(make_recipe: Make, tmp_path: Path) -> None:
    def nothing(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        losses, count = fragile_loss(model, batch)
        return losses * 0.0, count

    with pytest.raises(FaultError, match="no target is scored"):
        train(make_recipe(), tmp_path, loss=nothing)


def test_a_resumed_run_has_the_findings_of_an_unbroken_one_once(make_recipe: Make, tmp_path: Path) -> None:
    whole = train(fast(make_recipe, "warn"), tmp_path / "whole", loss=fragile_loss)
    training = Training(fast(make_recipe, "warn"), Options(runs=tmp_path / "broken", loss=fragile_loss))
    last = found(whole, Finding)[-1].step
    for step in training:
        if step.number == last - 3:
            break
    resumed = train(fast(make_recipe, "warn"), tmp_path / "broken", loss=fragile_loss)
    said = [[(each.kind, each.step) for each in found(run, Finding) if each.kind] for run in (whole, resumed)]
    assert said[0] == said[1] != []


def test_a_remedy_is_not_undone_by_a_change_that_was_planned(make_recipe: Make, tmp_path: Path) -> None:
    planned = Change(8, "optim.learning_rate", 7e-3)
    recipe = make_recipe({"watch.policy": "recover", "checkpoint.keep_at": [4, 8]})
    run = train(recipe, tmp_path, changes=(planned,))
    course = Course(run.recipe, 12).with_changes([planned])
    for key, value, due in (("optim.learning_rate", 1.0, 8), ("train.max_grad_norm", 0.5, 4)):
        watch = RunWatch(run, Watch(policy="recover"))
        error = Finding(11, "it rose", "loss 9", "less", "error", [6, 11], changes={key: value}, kind="odd")
        watch.take([error])
        decision = watch.decide(course, 12)
        assert decision is not None and decision.kind == "back" and decision.change is not None
        assert (decision.change.step, decision.change.key) == (due, key)
        assert decision.change.value == (2.1e-3 if due == 8 else value)


def test_recovering_needs_checkpoints_of_known_steps(make_recipe: Make) -> None:
    with pytest.raises(RecipeError, match="goes back to checkpoints"):
        make_recipe({"watch.policy": "recover", "checkpoint": {"every_minutes": 5.0}})


def test_without_a_checkpoint_before_the_fault_a_run_cannot_recover(
    make_recipe: Make, tmp_path: Path
) -> None:
    writer = create_run(tmp_path, make_recipe())
    watch = RunWatch(writer.run, Watch(policy="recover"))
    error = Finding(3, "it broke", "loss 9", "try less", severity="error", window=[2, 3], kind="odd")
    assert watch.take([error]) == []
    decision = watch.decide(Course(make_recipe(), 12), 3)
    assert decision is not None and decision.kind == "fail"
    assert "it broke, since step 2: loss 9; there is no checkpoint before it" in decision.reason
    assert "a larger checkpoint.keep keeps one" in decision.reason
    assert watch.decide(Course(make_recipe(), 12), 3) is None
    early = replace(error, step=0, window=[0, 0])
    assert watch.take([early]) == []
    decision = watch.decide(Course(make_recipe(), 12), 3)
    assert decision is not None and f"etude improve {writer.run.name}" in decision.reason
    assert decision.reason.startswith("it broke, found before the first step: loss 9")
    writer.close("stopped")
