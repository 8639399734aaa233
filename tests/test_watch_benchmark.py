"""The fault plan of the benchmark of the watch injects what it says, and a curve is read as it was kept."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from watch.cases import COMBINATIONS, ONSET, STEPS, Case, healthy_cases
from watch.curve import Curve, is_alarm, read_curve, write_curve
from watch.faults import FAULTS, own_loss
from watch.grid import order
from watch.meddling import accumulate, freeze, meddled, poison, repeat_batches
from watch.score import judge, tuning_half, wilson

from etude import Options, Training
from etude.models import attention
from etude.recipe.load import recipe_from
from etude.records.events import Finding, Step
from etude.watch.point import Facts, Point
from tests.recipes import tiny


def train(recipe: Any, runs: Path, **options: Any) -> tuple[list[Step], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    training = Training(recipe, Options(runs=runs, new=True, **options))
    for _ in training:
        pass
    steps = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Step)]
    last = max(training.run.checkpoints.glob("step-*"))
    return steps, load_file(last / "model.safetensors")


def test_every_fault_has_three_strengths_on_a_combination_that_can_have_it() -> None:
    cases = order(list(COMBINATIONS.values()))
    assert len({each.name for each in cases}) == len(cases)
    for name, fault in FAULTS.items():
        mine = [each for each in cases if each.condition == name]
        assert {each.strength for each in mine} == {0, 1, 2}, name
        for each in mine:
            traits = COMBINATIONS[each.combination].traits
            assert any(need <= traits for need in fault.traits)
        assert fault.named <= fault.kinds
    assert sum(fault.origin == "watch.md" for fault in FAULTS.values()) == 20


def test_there_are_200_healthy_runs_and_a_beginning_of_the_grid_is_balanced() -> None:
    cases = order(list(COMBINATIONS.values()))
    assert sum(each.is_healthy for each in healthy_cases(list(COMBINATIONS.values()))) >= 200
    beginning = cases[: len(cases) // 6]
    assert {each.condition for each in beginning if not each.is_healthy} == set(FAULTS)
    share = sum(each.is_healthy for each in beginning) / len(beginning)
    assert share == pytest.approx(sum(each.is_healthy for each in cases) / len(cases), abs=0.05)


def test_labels_of_own_losses_are_those_that_the_fault_says(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.arange(1, 9)[None]
    labels = torch.cat((tokens[:, 1:], torch.tensor([[-100]])), 1)
    labels[0, :3] = -100  # the prompt
    batch: Any = SimpleNamespace(tokens=tokens, labels=labels)
    asked = []

    def cross_entropy(scores: torch.Tensor, wanted: torch.Tensor, reduction: str) -> torch.Tensor:
        asked.append(wanted.tolist())
        return scores.sum()

    import watch.faults as faults

    monkeypatch.setattr(faults, "logits", lambda model, batch: torch.zeros(1, 8, 10))
    monkeypatch.setattr(faults.functional, "cross_entropy", cross_entropy)
    for name in ("labels_not_shifted", "labels_shifted_twice", "prompt_scored"):
        loss = FAULTS[name].loss
        assert loss is not None
        loss(1.0)(torch.nn.Identity(), batch)
    own_loss()(torch.nn.Identity(), batch)
    assert asked == [[4, 5, 6, 7], [6, 7, 8], [2, 3, 4, 5, 6, 7, 8, 9][:7], [5, 6, 7, 8]]


def test_without_the_mask_later_tokens_reach_earlier_answers() -> None:
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 6, 4, 8, generator=draw) for _ in range(3))
    other = v.clone()
    other[:, -1] += 1
    patch = FAULTS["no_causal_mask"].patch
    assert patch is not None

    def moved() -> torch.Tensor:
        first, second = (attention.attend(q, k, each, window=None, dropout=0.0) for each in (v, other))
        return (first - second)[0, :-1].abs().amax((0, 2)) > 0  # of each head

    assert not moved().any()
    with patch(0.5):
        assert moved().tolist() == [True, True, False, False]
    assert not moved().any()


def test_rows_of_nan_and_frozen_tensors_and_repeated_batches(make_recipe: Any, tmp_path: Path) -> None:
    recipe = make_recipe({"train.steps": 12, "checkpoint.every_steps": 12, "schedule.kind": "constant"})
    plain, first = train(recipe, tmp_path / "plain")
    with meddled(poison(4, onset=5)):
        steps, _ = train(recipe, tmp_path / "nan")
    assert [each.step for each in steps if each.skipped] == [6, 10]
    assert [each.loss for each in steps[:5]] == [each.loss for each in plain[:5]]
    with meddled(freeze(1.0)):
        _, still = train(recipe, tmp_path / "still")
        _, again = train(with_steps(recipe, 4), tmp_path / "again")
    assert all(
        torch.equal(still[name], again[name]) for name in still
    )  # as drawn, after 12 steps and after 4
    assert not any(torch.equal(still[name], first[name]) for name in first)
    with repeat_batches(2):
        steps, _ = train(recipe, tmp_path / "same")
    assert steps[2].targets == steps[0].targets and steps[-1].loss < plain[-1].loss
    with meddled(accumulate(100, onset=0)):
        steps, _ = train(recipe, tmp_path / "kept")
    assert steps[3].grad_norm > 2 * plain[3].grad_norm


def with_steps(recipe: Any, steps: int) -> Any:
    from etude.recipe.load import with_changes

    return with_changes(recipe, {"train.steps": steps})


def test_a_curve_is_read_as_it_was_kept(tmp_path: Path) -> None:
    case = {
        "combination": "alpaca-lora",
        "condition": "rate_zero",
        "strength": 0,
        "seed": 1,
        "is_healthy": False,
    }
    points = [
        Point(step=1, loss=2.5, grad_norm=float("inf"), skipped=True, learning_rate=1e-3),
        Point(step=2, loss=float("nan"), grad_norm=1.0),
        Point(step=2, eval_loss=3.25, metrics={"f1": 0.5}),
    ]
    found = Finding(2, "what", "evidence", "advice", kind="non_finite", severity="error", causes=["a rate"])
    curve = Curve(case, ONSET, Facts(steps=STEPS, classes=512), points, [found], "finished")
    read = read_curve(write_curve(curve, tmp_path))
    assert str(read.points) == str(points)  # NaN is not equal to itself
    assert read.facts == curve.facts and read.recorded == [replace(found, advice="")]
    assert read.final_loss[0] == 3.25


def test_a_fault_counts_as_found_by_its_own_kind_after_its_onset_only() -> None:
    case = {
        "combination": "alpaca-lora",
        "condition": "rate_zero",
        "strength": 0,
        "seed": 1,
        "is_healthy": False,
    }

    def verdict(step: int, kind: str, severity: str = "warning") -> Any:
        found = Finding(step, "", "", "", kind=kind, severity=severity)
        return judge(Curve(case, ONSET, Facts(), [], [replace(found, kind=kind)], "finished"))

    # dead_learning_rate is seen in the figures; of the run's records only what needs the model counts.
    assert verdict(90, "dead_learning_rate").late == []
    assert (
        verdict(90, "trainable_not_stepped").delay is None
        and verdict(90, "trainable_not_stepped").cause is False
    )
    assert verdict(70, "trainable_not_stepped").early
    assert verdict(90, "trainable_not_stepped", "info").late == []
    assert not is_alarm(Finding(1, "", "", "", severity="error"))


@pytest.mark.parametrize(
    ("losses", "has_lost"),
    [
        ([0.69, 0.43, 0.21, 0.74, 0.69], True),
        ([0.69, 0.43, 0.21, 0.35, 0.40], False),
        ([5.4, 4.8, 4.6, 4.5], False),
        ([0.694, 0.692, 0.69, 0.693], False),  # within the errors
        ([0.5], False),
        ([], False),
    ],
)
def test_a_run_that_lost_what_it_had_learnt_is_known_by_its_end(losses: list[float], has_lost: bool) -> None:
    points = [Point(step=20 * at, eval_loss=loss, eval_error=0.01) for at, loss in enumerate(losses)]
    curve = Curve({"condition": "plain"}, 0, Facts(), [*points, Point(step=99, loss=1.0)], [], "finished")
    assert curve.has_lost is has_lost


def test_halves_and_intervals() -> None:
    assert len(tuning_half()) == len(COMBINATIONS) // 2
    low, high = wilson(44, 48)
    assert (low, high) == (0.804, 0.967)  # statsmodels' proportion_confint(44, 48, method="wilson")
    assert Case("a", "b", 0, 1, True).name == "b-0-a-1"


def test_a_treatment_is_counted_where_the_fault_had_an_effect_only() -> None:
    from watch.cure import changed, summary

    def row(fault: bool, second: bool, seed: bool) -> dict[str, Any]:
        made = {"fault": fault, "version two": second, "version three": second, "another seed": seed}
        return {name: {"is_well": is_well} for name, is_well in made.items()}

    told = summary(
        {
            "rate_low-0-a": row(False, True, False), "rate_low-1-a": row(False, False, False),
            "decay_high-0-a": row(False, True, False), "decay_high-1-a": row(True, True, True),
        }
    )  # fmt: skip
    assert told["version two"]["cases"][:2] == [2, 3] and told["another seed"]["cases"][:2] == [0, 3]
    assert told["version two"]["faults"][:2] == [1, 2]  # of which all cases with an effect are cured
    assert told["without effect"] == ["decay_high-1-a"]

    old = recipe_from(tiny(Path("a")))
    new = recipe_from(tiny(Path("a"), {"name": "a-v2", "train.steps": 9, "records.parent": "a"}))
    assert changed(old, new) == {"train.steps": 9}


def test_a_run_is_held_against_its_twins_row_by_row() -> None:
    from watch.yardstick import Yardstick

    draw = np.random.default_rng(1)
    targets = draw.integers(5, 50, 96).astype(float)
    rows = targets * draw.normal(2, 0.5, 96)  # rows differ much, runs on the same row little
    twins = np.stack([rows + targets * (each + draw.normal(0, 0.01, 96)) for each in (-0.01, 0.0, 0.01)])
    stick = Yardstick(recipe_from(tiny(Path("a"))), twins, targets)
    assert stick.scatter == pytest.approx(0.01, rel=0.2)
    near, far = rows + 0.01 * targets, rows + 0.05 * targets
    assert stick.distance(near)[1] < 2 < stick.distance(far)[1]
    assert stick.distance(far)[0] == pytest.approx(0.05, abs=0.005)
    assert stick.distance(None) == (math.inf, math.inf)
