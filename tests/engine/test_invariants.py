"""A rule of the loop that is broken is named at the next log step, and a healthy run breaks none."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etude import plan, saving
from etude import session as sessions
from etude.data.loader import Loader, StepBatches
from etude.engine import invariants, loop, planned
from etude.engine.invariants import Invariants
from etude.engine.optim import Muon, Optimizer
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.errors import FaultError
from etude.objectives.examiner import Examiner
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import list_runs
from etude.run import Training, run_recipe
from etude.session import Session
from etude.start import Options
from tests import bases, recipes
from tests.objectives.sessions import begun, found

Make = Callable[..., Recipe]
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    "changes",
    [{}, {"optim.kind": "muon"}, {"train.precision": "fp16"}, {"train.max_grad_norm": "none"},
     {"train.micro_batch_size": 2, "records.log_every_steps": 1}, {"train.global_batch_size": 300}],
)  # fmt: skip
def test_a_healthy_run_breaks_no_rule(make_recipe: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = make_recipe({"train.steps": 24, **changes})
    training = Training(recipe, Options(runs=tmp_path))
    for step in training:
        if step.number == 11:
            break
    assert found(run_recipe(recipe, Options(runs=tmp_path)).run) == {}


def test_an_adapter_and_several_tasks_break_no_rule(tmp_path: Path) -> None:
    rows, base = bases.write_instructions(tmp_path / "rows.jsonl"), bases.write_qwen2(tmp_path / "base")
    adapter = {"adapter": {"rank": 2, "dropout": 0.1}, "train.steps": 22}
    assert found(run_recipe(recipes.finetuning(rows, base, adapter), Options(runs=tmp_path)).run) == {}
    tasks = recipes.tasks(tmp_path, {"train.steps": 22})
    assert found(run_recipe(tasks, Options(runs=tmp_path / "tasks")).run) == {}


def no_clip(patch: Patch) -> None:
    update = loop._update
    patch.setattr(
        loop, "_update",
        lambda state, grads, totals, settings, layout: update(
            state, grads, totals, replace(settings, max_grad_norm=None), layout
        ),
    )  # fmt: skip


def schedule_twice(patch: Patch) -> None:
    update = loop._update

    def ahead(state: Any, grads: Any, totals: Any, settings: Any, layout: Any) -> Any:
        rate = state.course.at(2 * state.step).learning_rate
        return update(state, grads, totals, replace(settings, learning_rate=rate), layout)

    patch.setattr(loop, "_update", ahead)


def other_seed(patch: Patch) -> None:
    loader = sessions.Loader
    patch.setattr(sessions, "Loader", lambda split, **named: loader(split, **{**named, "seed": 5}))


def one_never_stepped(patch: Patch) -> None:
    begin = sessions.Session.__post_init__

    def forget(session: Session) -> None:
        session.state.optimizer.parts[0].parameters.pop(0)
        begin(session)

    patch.setattr(sessions.Session, "__post_init__", forget)


def evaluation_moves(patch: Patch) -> None:
    evaluate = Examiner.evaluate

    def train_on(examiner: Examiner, **how: bool) -> Any:
        with torch.no_grad():
            next(examiner.state.model.parameters()).add_(0.5)
        return evaluate(examiner, **how)

    patch.setattr(Examiner, "evaluate", train_on)


def evaluation_leaves_gradients(patch: Patch) -> None:
    evaluate = Examiner.evaluate

    def train_on(examiner: Examiner, **how: bool) -> Any:
        weight = next(examiner.state.model.parameters())
        weight.sum().backward()
        return evaluate(examiner, **how)

    patch.setattr(Examiner, "evaluate", train_on)


def gradients_stay(patch: Patch) -> None:
    """Gradients are kept, but at log steps: what is there between them counts, and no evaluation left it."""
    step = Optimizer.step

    def keep(optimizer: Optimizer, *arguments: Any, **named: Any) -> None:
        step(optimizer, *arguments, **named)
        counted = next(values["step"] for _, values in optimizer.states())
        if counted % 3:
            patch.setattr(optimizer, "zero_grad", lambda: None)
        else:
            patch.delattr(optimizer, "zero_grad")

    patch.setattr(Optimizer, "step", keep)


def forgets(after: int, what: str = "all") -> Callable[[Patch], None]:
    """The optimizer loses its state, or that of its first tensor, before the step after so many."""

    def break_it(patch: Patch) -> None:
        step, made = Optimizer.step, Counter[int]()  # the trace of a step has an optimizer of its own

        def forget(optimizer: Optimizer, *arguments: Any, **named: Any) -> None:
            made[id(optimizer)] += 1
            for part in optimizer.parts if made[id(optimizer)] == after + 1 else ():
                for parameter in list(part.state)[: None if what == "all" else 1]:
                    del part.state[parameter]
            step(optimizer, *arguments, **named)

        patch.setattr(Optimizer, "step", forget)

    return break_it


def first_rows(patch: Patch) -> None:
    """A collator keeps the first row of each micro-batch."""
    load = Loader.load

    def cut(loader: Loader, step: int) -> StepBatches:
        read = load(loader, step)
        first = [each.map(lambda array: array[:1]) for each in read.micro_batches]
        return replace(read, micro_batches=first)

    patch.setattr(Loader, "load", cut)


def half_the_steps(patch: Patch) -> None:
    choose = plan.choose_length
    patch.setattr(plan, "choose_length", lambda *given: replace(choose(*given), steps=6))


def stale_checkpoint(patch: Patch) -> None:
    take = saving.take_snapshot

    def stale(*given: Any) -> Any:
        snapshot = take(*given)
        name = min(snapshot.weights)
        return replace(snapshot, weights={**snapshot.weights, name: snapshot.weights[name] * 0})

    patch.setattr(saving, "take_snapshot", stale)


def one_other_sample(patch: Patch) -> None:
    """Steps have the samples of the plan but for the last, which is another."""
    load = Loader.load

    def change(loader: Loader, step: int) -> StepBatches:
        batches = load(loader, step)
        return replace(batches, ids=np.append(batches.ids[:-1], 0))

    patch.setattr(Loader, "load", change)


@pytest.mark.parametrize(
    ("break_it", "kind", "step", "says"),
    [
        (no_clip, "clip_skipped", 3, "is to be divided by "),
        (schedule_twice, "rate_off_schedule", 3, "was applied, the schedule has "),
        (other_seed, "samples_off_plan", 3, "rank 0 read sample "),
        (one_other_sample, "samples_off_plan", 3, "at place 8, where the plan has "),
        (first_rows, "samples_off_plan", 3, "read 32 tokens of samples that have 256"),
        (half_the_steps, "steps_off_plan", 3, "end after step 6, and the recipe asks for 12 steps"),
        (stale_checkpoint, "checkpoint_differs", 4, "step-000004 has other values of "),
        (gradients_stay, "gradients_kept", 3, "of 24 trained tensors held a gradient before step 2"),
        (forgets(1), "optimizer_state_lost", 3, "with 2 updates of 3"),
        (forgets(7), "optimizer_state_lost", 9, "with 2 updates of 9"),
        (forgets(7, "one"), "optimizer_state_lost", 9, "with 2 updates of 9"),
        (one_never_stepped, "tensor_not_stepped", 3, "had fewer updates than the 3 of others"),
        (evaluation_moves, "evaluation_trains", 9, "moved in an evaluation"),
        (evaluation_leaves_gradients, "evaluation_trains", 9, "have gradients after an evaluation"),
    ],
)
def test_a_broken_rule_is_named_at_the_next_log_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch, break_it: Callable[[Patch], None], kind: str,
    step: int, says: str,
) -> None:  # fmt: skip
    break_it(monkeypatch)
    recipe = make_recipe({"train.max_grad_norm": 0.1, "evaluate.every_steps": 6, "train.steps": 12})
    broken = found(run_recipe(recipe, Options(runs=tmp_path)).run)
    assert list(broken) == [kind]
    assert (broken[kind].step, broken[kind].severity) == (step, "error") and says in broken[kind].evidence


def test_a_model_that_is_called_without_autocast_is_named(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    recipe = make_recipe({"train.precision": "fp16"})
    monkeypatch.setattr(Precision, "autocast", lambda precision: contextlib.nullcontext())
    broken = found(run_recipe(recipe, Options(runs=tmp_path)).run)
    assert list(broken) == ["precision_off"] and broken["precision_off"].step == 3
    assert "without autocast to fp16" in broken["precision_off"].evidence


def test_muon_that_lost_its_momentum_is_named(make_recipe: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    healthy = make_recipe({"optim.kind": "muon", "train.steps": 12})
    assert found(run_recipe(healthy, Options(runs=tmp_path / "healthy")).run) == {}
    step, made = Muon.step, []

    def forget(muon: Muon, *arguments: Any) -> None:
        made.append(1)
        if len(made) == 8:
            muon.state.clear()
        step(muon, *arguments)

    monkeypatch.setattr(Muon, "step", forget)
    broken = found(run_recipe(healthy, Options(runs=tmp_path)).run)
    assert list(broken) == ["optimizer_state_lost"] and broken["optimizer_state_lost"].step == 9
    assert "(momentum)" in broken["optimizer_state_lost"].evidence


def test_gradients_of_zeros_are_none(make_recipe: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    def set_to_zeros(optimizer: Optimizer) -> None:
        for parameter in optimizer.parameters:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Optimizer, "zero_grad", set_to_zeros)
    assert "gradients_kept" not in found(run_recipe(make_recipe(), Options(runs=tmp_path)).run)


@pytest.mark.parametrize(("break_it", "named_at"), [(one_other_sample, 11), (first_rows, 9)])
def test_samples_are_compared_seldom_later_and_missing_rows_seen_at_once(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch, break_it: Callable[[Patch], None], named_at: int
) -> None:
    monkeypatch.setattr(invariants, "_PASS_STEPS", 2)
    monkeypatch.setattr(invariants, "_PLAN_STEPS", 5)
    right = Loader.load
    break_it(monkeypatch)
    wrong = Loader.load
    monkeypatch.setattr(Loader, "load", lambda loader, step: (right if step < 8 else wrong)(loader, step))
    recipe = make_recipe({"train.steps": 20, "records.log_every_steps": 1})
    (broken,) = found(run_recipe(recipe, Options(runs=tmp_path)).run).values()
    assert (broken.kind, broken.step) == ("samples_off_plan", named_at)


def test_a_large_step_is_compared_with_the_plan_in_turns(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    one_other_sample(monkeypatch)
    monkeypatch.setattr(planned, "_MOST_IDS", 5)
    recipe = make_recipe({"train.steps": 20, "records.log_every_steps": 10})
    (broken,) = found(run_recipe(recipe, Options(runs=tmp_path)).run).values()
    assert broken.kind == "samples_off_plan" and broken.step == 20
    assert "at place 8, where the plan has " in broken.evidence and "1 of 3 samples" in broken.evidence


def test_state_that_lost_its_dtype_in_a_resume_is_named(
    make_recipe: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    for step in Training(make_recipe(), Options(runs=tmp_path)):
        if step.number == 5:
            break
    with begun(make_recipe(), tmp_path) as session:
        next(step for step in session.steps() if step.number == 6)
        for _, values in session.state.optimizer.states():
            values["exp_avg"] = values["exp_avg"].bfloat16()
        (broken,) = session.invariants._find_wrong_state()
    assert broken.kind == "optimizer_state_wrong" and "(exp_avg in bfloat16)" in broken.evidence


class Drifting(nn.Module):
    """A module with a frozen tensor, and a trained one that the loss does not reach."""

    def __init__(self, moves: str) -> None:
        super().__init__()
        self.table, self.frozen, self.idle = nn.Embedding(512, 512), nn.Linear(4, 4), nn.LayerNorm(4)
        self.frozen.requires_grad_(False)
        self.moves = moves

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.moves and self.training:
            self.frozen.weight.data.add_(1e-3)
        scores: torch.Tensor = self.table(tokens)
        return scores + 0 * self.idle(torch.ones(4)).sum().detach()


def drifting_loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    scores, labels = model(batch.tokens).flatten(0, 1), batch.labels.flatten()
    return nn.functional.cross_entropy(scores, labels, reduction="sum"), labels.numel()


@pytest.mark.parametrize("moves", ["", "frozen"])
def test_frozen_tensors_that_move_and_trained_ones_that_do_not_are_named(
    make_recipe: Make, tmp_path: Path, moves: str
) -> None:
    options = Options(runs=tmp_path, model=Drifting(moves), loss=drifting_loss)
    broken = found(run_recipe(make_recipe({"train.steps": 24}), options).run)
    assert broken["tensor_not_moved"].evidence.startswith("idle.weight, idle.bias of 3 trained tensors")
    assert broken["tensor_not_moved"].step == 21 and broken["tensor_not_moved"].severity == "warning"
    assert ("frozen_moved" in broken) == bool(moves)
    if moves:
        assert broken["frozen_moved"].evidence == "frozen.weight" and broken["frozen_moved"].step <= 12


def test_weights_that_never_move_are_named_and_end_the_run_as_failed(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe({"train.steps": 24, "optim.learning_rate": 1e-30})
    with pytest.raises(FaultError, match="no weight moved: all of 24 trained tensors are as they began"):
        run_recipe(recipe, Options(runs=tmp_path))
    assert found(list_runs(tmp_path)[0])["never_moved"].step == 21


class Shared(World):
    """Ranks that are threads of one process."""

    def total(self, tensors: Any) -> None:
        sums, barrier = self.store
        for tensor in tensors:
            sums.append(tensor.clone())
            barrier.wait()
            tensor.copy_(sum(sums))  # type: ignore[call-overload]
            barrier.wait()


def test_ranks_that_hold_other_weights_are_named(make_recipe: Make, tmp_path: Path) -> None:
    told: dict[tuple[str, int], list[Finding]] = {}
    for name, change in (("same", 0.0), ("other", 1e-6)):
        store = ([], threading.Barrier(2))

        def take_part(rank: int, name: str = name, change: float = change, store: Any = store) -> None:
            with begun(make_recipe(), tmp_path / f"{name}-{rank}") as session:
                step = next(session.steps())
                with torch.no_grad():
                    next(session.state.model.parameters())[3, 3] += change * rank
                world = Shared(torch.device("cpu"), rank, 2, store)
                rules = Invariants(session.state, world, session.plan.train, 8)
                rules.begin()
                told[name, rank] = rules.check(step)

        ranks = [threading.Thread(target=take_part, args=(rank,)) for rank in range(2)]
        for each in ranks:
            each.start()
        for each in ranks:
            each.join()
    assert [each.kind for each in told["same", 0]] == []
    assert [(each.kind, each.evidence) for each in told["other", 0]] == [
        ("ranks_differ", "those of rank 1 differ from those of rank 0")
    ]


def test_checks_change_no_bit(make_recipe: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    with_checks = run_recipe(make_recipe({"model.dropout": 0.2}), Options(runs=tmp_path / "with")).run
    monkeypatch.setattr(Invariants, "check", lambda rules, step: [])
    monkeypatch.setattr(Invariants, "begin", lambda rules: None)
    without = run_recipe(make_recipe({"model.dropout": 0.2}), Options(runs=tmp_path / "without")).run
    one, other = (
        load_file(run.checkpoints / "step-000012" / "model.safetensors") for run in (with_checks, without)
    )
    assert all(one[name].equal(other[name]) for name in one)
