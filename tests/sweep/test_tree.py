"""The steps that trials have in common are made once: counted exactly, and only where their plans are equal."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schedule import learning_rate_ratio
from etude.sweep.grid import Trial, load_sweep
from etude.sweep.tree import Planned, build_tree, offers, reasons, shared_until, why_apart
from tests.recipes import tiny

PLAN = Path(__file__).parents[2] / "recipes" / "code-understanding-72.toml"
ROWS = 21_920  # near the 21,854 of the data, and a fifth of each trial is whole steps


def plan_of_72(changes: dict[str, Any]) -> list[Planned]:
    planned = []
    for trial in load_sweep(PLAN).trials:
        recipe = with_changes(trial.recipe, changes)
        train = recipe.train
        assert isinstance(train.micro_batch_size, int) and train.accumulation and train.epochs
        per_epoch = -(-ROWS // (train.micro_batch_size * train.accumulation))
        planned.append(Planned(replace(trial, recipe=recipe), train.epochs * per_epoch, per_epoch))
    return planned


def planned(changes: dict[str, Any], name: str = "one") -> Planned:
    recipe = recipe_from(tiny(Path("rows.jsonl"), {"name": name, **changes}))
    assert recipe.train.steps
    return Planned(Trial(name, "tier", "net", 0, {}, recipe), recipe.train.steps, 10)


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, 180.0),
        ({"schedule.kind": "wsd", "schedule.decay_ratio": 0.2}, 201.6),
        ({"schedule.kind": "linear"}, 288.0),
        ({"schedule.kind": "cosine", "schedule.warmup_steps": 0}, 288.0),
    ],
)
def test_72_trials_have_36_trunks_and_as_many_epochs_as_worked_out_by_hand(
    changes: dict[str, Any], epochs: float
) -> None:
    tree = build_tree(plan_of_72(changes))
    assert tree.epochs_alone == pytest.approx(288) and tree.epochs == pytest.approx(epochs)
    assert len(tree.trunks) == (36 if epochs < 288 else 72) and len(tree.stages) == 72


def test_linear_shares_nothing_and_constant_or_wsd_are_offered_and_not_made() -> None:
    trials = plan_of_72({"schedule.kind": "linear"})
    (reason,) = reasons(trials)
    assert reason.key == "schedule.kind" and "linear falls to the end" in reason.text and reason.groups == 36
    assert [(dict(offer.changes), round(offer.epochs, 1)) for offer in offers(trials)] == [
        ({"schedule.kind": "constant"}, 180.0), ({"schedule.kind": "wsd"}, 201.6)
    ]  # fmt: skip
    assert {each.recipe.schedule.kind for each in trials} == {"linear"}
    assert offers(plan_of_72({})) == [] and reasons(plan_of_72({})) == []


def test_every_trial_goes_on_from_a_longer_one_that_stands_before_it() -> None:
    seen: dict[str, int] = {}
    for stage in build_tree(plan_of_72({"schedule.kind": "wsd"})).stages:
        if stage.parent:
            assert stage.fork < seen[stage.parent] and stage.fork == 0.8 * stage.planned.steps
        seen[stage.name] = stage.planned.steps


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"optim.learning_rate": 1e-3}, "optim.learning_rate differs"),
        ({"evaluate.every_steps": 3}, "evaluate.every_steps differs"),
        ({"evaluate.patience": 2}, "evaluate.patience differs"),
        ({"data.validation_ratio": 0.2}, "data.validation_ratio differs"),
        ({"seed": 4}, "seed differs"),
        ({"schedule.warmup_steps": 9}, "schedule.warmup_steps differs"),
        ({"schedule.kind": "cosine"}, "schedule.kind: cosine falls"),
        ({"schedule.kind": "wsd", "train.steps": 62}, "schedule.kind: wsd falls"),
        ({"train.steps": 200, "records.log_every_steps": None}, None),
    ],
)
def test_the_key_that_keeps_two_trials_apart_is_named(changes: dict[str, Any], key: str | None) -> None:
    flat = {"schedule.kind": "constant", "schedule.warmup_steps": 2, "train.steps": 60}
    one = planned({**flat, **({"records.log_every_steps": None} if key is None else {})})
    other = planned({**flat, "train.steps": 90, **changes}, "other")
    found = why_apart(one, other)
    assert found and found.startswith(key or "records.log_every_steps")
    if key is None or "wsd" not in key:
        assert shared_until(one, other) <= 3


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data.validation": "none"}, "data.validation"),
        ({"watch.policy": "recover"}, "watch.policy"),
        ({"criteria": [{"figure": "progress", "above": 0.5}]}, "criteria"),
        ({"train.devices": 2}, "train.devices"),
    ],
)
def test_trials_whose_first_steps_depend_on_their_end_are_trained_alone(
    changes: dict[str, Any], key: str
) -> None:
    flat = {"schedule.kind": "constant", **changes}
    one, other = planned({**flat, "train.steps": 8}), planned({**flat, "train.steps": 12}, "other")
    assert shared_until(one, other) == 0 and str(why_apart(one, other)).startswith(key)
    assert len(build_tree([one, other]).trunks) == 2


KEYS = {
    "train.steps": [10, 15, 20, 40],
    "schedule.kind": ["constant", "wsd", "linear", "cosine"],
    "schedule.warmup_steps": [0, 3],
    "schedule.decay_ratio": [0.2, 0.5],
    "schedule.min_lr_ratio": [0.0, 1.0],
    "optim.learning_rate": [1e-3, 3e-3],
    "train.global_batch_size": [8, 16],
    "evaluate.every_steps": [5, 6],
}


def allowed(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes without those that have no meaning for the kind of schedule."""
    kind = changes["schedule.kind"]
    return {
        key: value
        for key, value in changes.items()
        if not (
            (key.endswith("decay_ratio") and kind != "wsd")
            or (key.endswith("lr_ratio") and kind == "constant")
        )
    }


@given(
    st.lists(
        st.fixed_dictionaries({key: st.sampled_from(values) for key, values in KEYS.items()}),
        min_size=2,
        max_size=12,
    )
)
def test_stages_make_as_many_steps_as_plans_have_different_beginnings(drawn: list[dict[str, Any]]) -> None:
    trials = [planned(allowed(changes), f"trial-{number}") for number, changes in enumerate(drawn)]
    tree = build_tree(trials)
    assert sorted(stage.name for stage in tree.stages) == sorted(each.trial.name for each in trials)
    known = {each.trial.name: each for each in trials}

    def beginnings(each: Planned, steps: int) -> list[tuple[Any, ...]]:
        """The plan up to a step, written out: rates by the schedule, and all other keys as they are."""
        recipe = each.recipe
        rest = (recipe.optim.learning_rate, recipe.train.global_batch_size, recipe.evaluate.every_steps)
        rates = [learning_rate_ratio(step, recipe.schedule, steps=each.steps) for step in range(steps)]
        return [(*rest, *rates[:end]) for end in range(1, steps + 1)]

    for stage in tree.stages:
        if stage.parent:
            mine, theirs = beginnings(stage.planned, stage.fork), beginnings(known[stage.parent], stage.fork)
            assert mine == theirs and 0 < stage.fork <= stage.planned.steps
    different = {start for each in trials for start in beginnings(each, each.steps)}
    # Beginnings of less than a twentieth of a trial may be made again.
    assert len(different) <= tree.steps <= len(different) + sum(each.steps // 20 + 1 for each in trials)
