import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest

from etude.errors import RecipeError
from etude.recipe.course import KEYS, Change, Course, why_unchangeable
from etude.recipe.keys import recipe_keys
from etude.recipe.schedule import learning_rate_ratio
from etude.recipe.schema import Recipe, Schedule

Make = Callable[..., Recipe]


def test_a_change_holds_from_the_step_after_its_own(make_recipe: Make) -> None:
    recipe = make_recipe({"schedule.kind": "constant"})
    course = Course(
        recipe, 12, (Change(5, "optim.learning_rate", 1e-3), Change(3, "train.max_grad_norm", None))
    )
    assert [course.at(step).learning_rate for step in (0, 4, 5, 11)] == [3e-3, 3e-3, 1e-3, 1e-3]
    assert [course.at(step).max_grad_norm for step in (0, 2, 3, 5, 11)] == [1.0, 1.0, None, None, None]
    assert [course.until(step) for step in (0, 2, 3, 4, 5, 11)] == [3, 3, 5, 5, 12, 12]
    assert [change.step for change in course.changes] == [3, 5]


def test_a_schedule_that_is_changed_goes_on_from_the_same_step(make_recipe: Make) -> None:
    changes = (Change(4, "schedule.kind", "wsd"), Change(4, "schedule.decay_ratio", 0.25))
    course = Course(make_recipe(), 12, changes)
    before, after = Schedule(kind="cosine"), Schedule(kind="wsd", decay_ratio=0.25)
    rates = [3e-3 * learning_rate_ratio(step, after if step >= 4 else before, steps=12) for step in range(12)]
    assert [course.at(step).learning_rate for step in range(12)] == rates


def test_skipped_batches_are_left_out_once_and_the_steps_go_on(make_recipe: Make) -> None:
    course = Course(make_recipe(), 12, (Change(2, "data.skip_steps", 3), Change(5, "data.skip_steps", 1)))
    assert [course.data_step(step, 99) for step in range(8)] == [0, 1, 5, 6, 7, 9, 10, 11]


def test_auto_is_all_samples_of_a_rank_until_it_is_changed(make_recipe: Make) -> None:
    course = Course(make_recipe({"train.devices": 2}), 12, (Change(6, "train.micro_batch_size", 2),))
    assert [course.at(step).micro_batch_size for step in (0, 5, 6)] == [4, 4, 2]


def test_halves_divide_the_samples_of_a_rank_until_there_is_one(make_recipe: Make) -> None:
    course = Course(make_recipe({"train.global_batch_size": 18, "train.micro_batch_size": 9}), 12)
    sizes = []
    while change := course.halve(4, "memory"):
        course = course.with_changes(change)
        sizes.append((course.at(3).micro_batch_size, course.at(4).micro_batch_size))
    assert sizes == [(9, 3), (9, 1)]


def test_accumulation_keeps_the_samples_of_a_step_when_micro_batches_shrink(make_recipe: Make) -> None:
    given = {"train.global_batch_size": None, "train.accumulation": 3, "train.micro_batch_size": 4}
    course = Course(make_recipe(given), 12)
    assert course.halve(0, "") == [Change(0, "train.micro_batch_size", 2, "")]
    assert course.with_changes([Change(1, "train.micro_batch_size", 6)]).at(1).micro_batch_size == 6


def test_a_smaller_batch_goes_on_with_the_row_after_the_last_one(make_recipe: Make) -> None:
    """Rows by hand: 21 a pass, 8 a step (3 steps), from step 4 on 4 a step (6 steps), from step 7 on 2."""
    batch = "train.global_batch_size"
    course = Course(
        make_recipe(), 40, (Change(4, batch, 4), Change(6, "data.skip_steps", 1), Change(7, batch, 2))
    )
    assert [course.at(step).global_batch_size for step in (3, 4, 7)] == [8, 4, 2]
    # Step 4 begins at row 8 of the second pass: at batch 2 of 6. Step 7 begins at row 8 + 4 * 4 = 24 of
    # 21: as batch 5 has one row, it is the first of the third pass, which is 22 batches of 2 later.
    assert [course.data_step(step, 21) for step in range(9)] == [0, 1, 2, 3, 8, 9, 11, 24 - 2, 24 - 1]


def test_a_smaller_batch_keeps_the_number_of_micro_batches(make_recipe: Make) -> None:
    course = Course(make_recipe({"train.global_batch_size": 24, "train.micro_batch_size": 6}), 12)
    for size in (3, 1):
        course = course.with_changes(course.halve(4, "memory", keep_batch=False))
        settings = course.at(4)
        assert (settings.micro_batch_size, settings.global_batch_size) == (size, 4 * size)
    assert course.halve(4, "memory", keep_batch=False) == []
    given = {"train.global_batch_size": None, "train.accumulation": 3, "train.micro_batch_size": 4}
    course = Course(make_recipe(given), 12)
    settings = course.with_changes(course.halve(2, "", keep_batch=False)).at(2)
    assert (settings.micro_batch_size, settings.global_batch_size) == (2, 6)


@pytest.mark.parametrize(
    ("date", "steps", "line"),
    [
        (7, 20, "cannot be 20: the decay of the learning rate began after step 6"),
        (4, 7, "cannot be 7: the decay of the learning rate would have begun after step 3; give more steps"),
    ],
)
def test_the_decay_of_wsd_does_not_move_out_of_what_is_done(
    make_recipe: Make, date: int, steps: int, line: str
) -> None:
    recipe = make_recipe({"schedule.kind": "wsd", "schedule.decay_ratio": 0.5})
    with pytest.raises(RecipeError) as caught:
        Course(recipe, 12).with_changes([Change(date, "train.steps", steps)])
    assert caught.value.problems == [f"train.steps (change at step {date}) {line}"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (Change(4, "optim.learning_rate", -1.0), "optim.learning_rate (change at step 4) is -1.0; it must be above 0; try 0.0002"),
        (Change(4, "optim.learning_rate", "fast"), 'optim.learning_rate (change at step 4) is "fast"; it must be a number'),
        (Change(4, "seed", 3), "seed cannot be changed while a run goes on; etude train RECIPE seed=VALUE --from RUN@last begins a new run"),
        (Change(4, "model.n_layer" * 100, 3), "is not a key of a recipe; "),
        (Change(4, "optim.lr", 3), "optim.lr is not a key of a recipe; did you mean learning_rate?"),
        (Change(4, "train.micro_batch_size", 3), "train.micro_batch_size (change at step 4) is 3; it must divide the 8 samples"),
        (Change(4, "train.micro_batch_size", "auto"), "is \"auto\"; it must divide the 8 samples"),
        (Change(4, "data.skip_steps", 0), "data.skip_steps (change at step 4) is 0; it must be a whole number above 0"),
        (Change(4, "data.skip_steps", True), "is true; it must be a whole number above 0"),
        (Change(4, "train.global_batch_size", 16), "train.global_batch_size (change at step 4) is 16; it must be a smaller part of 8, as 4 is"),
        (Change(4, "train.global_batch_size", 3), "it must be a smaller part of 8, as 4 is"),
        (Change(4, "train.activation_checkpointing", "yes"), "train.activation_checkpointing (change at step 4)"),
        (Change(4, "schedule.warmup_steps", 12), "schedule.warmup_steps (change at step 4) is 12"),
        (Change(4, "schedule.decay_ratio", 0.5), 'has no meaning for kind = "cosine"'),
        (Change(4, "train.steps", 20), 'train.steps (change at step 4) cannot be 20: under schedule.kind = "cosine" the number of steps sets'),
        (Change(4, "train.steps", 4), "train.steps (change at step 4) is 4; it must be a whole number above the 4 steps done"),
        (Change(4, "train.steps", "many"), 'is "many"; it must be a whole number above'),
        (Change(4, "train.steps", 2**70), "train.steps (change at step 4)"),
        (Change(4, "evaluate.patience", 0), "evaluate.patience (change at step 4) is 0; it must be above 0"),
        (Change(4, "optim.weight_decay", 0.1), "while a run goes on; etude fork RUN optim.weight_decay=VALUE goes on with it in a run of its own"),
        (Change(12, "optim.learning_rate", 1e-3), "(change at step 12) must come after 0 to 11 steps"),
        (Change(-1, "optim.learning_rate", 1e-3), "must come after 0 to 11 steps"),
    ],
)  # fmt: skip
def test_a_change_is_refused_as_a_value_of_a_recipe_is(make_recipe: Make, change: Change, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Course(make_recipe(), 12).with_changes([change])
    (problem,) = caught.value.problems
    assert line in problem and len(problem) <= 300


def test_another_number_of_steps_holds_from_its_date_and_may_come_where_the_run_would_end(
    make_recipe: Make,
) -> None:
    constant = Course(make_recipe({"schedule.kind": "constant"}), 12)
    course = constant.with_changes([Change(4, "train.steps", 9), Change(9, "train.steps", 30)])
    assert [course.steps_at(step) for step in (0, 3, 4, 8, 9, 29)] == [12, 12, 9, 9, 30, 30]
    assert (course.planned_steps, course.until(4), course.until(9)) == (30, 9, 30)
    assert course.recipe_at(5).train.steps == 9


def test_the_decay_of_wsd_moves_with_the_steps_before_it_began(make_recipe: Make) -> None:
    recipe = make_recipe({"schedule.kind": "wsd", "schedule.decay_ratio": 0.5})  # decays from step 6 on
    for date in (0, 3, 6):
        course = Course(recipe, 12, (Change(date, "train.steps", 20),))
        rates = [3e-3 * learning_rate_ratio(step, recipe.schedule, steps=20) for step in range(20)]
        assert [course.at(step).learning_rate for step in range(20)] == rates
    assert Course(recipe, 12, (Change(4, "train.steps", 8),)).at(7).learning_rate == pytest.approx(3e-4)


def test_a_key_that_stands_for_another_takes_its_place(make_recipe: Make) -> None:
    given = {"train.steps": None, "train.epochs": 3, "evaluate.every_steps": None, "evaluate.every_epochs": 1}
    recipe = make_recipe({**given, "schedule.kind": "constant"})
    changes = (Change(2, "train.steps", 20), Change(2, "evaluate.every_steps", 4))
    course = Course(recipe, 12, changes)
    after = course.recipe_at(2)
    assert (after.train.steps, after.train.epochs) == (20, None)
    assert (after.evaluate.every_steps, after.evaluate.every_epochs) == (4, None)
    assert [course.before(change) for change in changes] == [None, None]
    with pytest.raises(RecipeError, match=r"train\.steps = 20 is as long"):
        Course(recipe, 12).with_changes([Change(2, "train.epochs", 5)])


def test_a_course_takes_a_thousand_changes_and_stays_as_it_is(make_recipe: Make) -> None:
    course = Course(make_recipe(), 12)
    with pytest.raises(RecipeError, match="1,001 changes; it takes 1,000"):
        course.with_changes([Change(1, "data.skip_steps", 1)] * 1001)
    with pytest.raises(FrozenInstanceError):
        course.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "key", sorted({*recipe_keys(), "data.train.1.path", "tasks.x.ratio", "notify"} - {*KEYS})
)
def test_a_key_that_cannot_change_in_flight_has_one_other_way(key: str) -> None:
    said = why_unchangeable(key, "my-run")
    ways = [f"etude fork my-run {key}=VALUE", f"etude stop my-run, then etude train RECIPE {key}=VALUE",
            f"etude train RECIPE {key}=VALUE --from my-run@last"]  # fmt: skip
    assert said.startswith(f"{key} cannot be changed while a run goes on; ")
    assert sum(way in said for way in ways) == 1, said


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("modle.n_layer", "did you mean model?"),
        ("optim.lr", "did you mean learning_rate?"),
        ("a.b.c", "known here: name, seed, "),
        ("", "known here: name, seed, "),
        ("\n", "known here: name, seed, "),
    ],
)
def test_what_is_no_key_is_told_so_with_what_was_meant(key: str, advice: str) -> None:
    said = why_unchangeable(key)
    assert "is not a key of a recipe; " in said and advice in said, said


def test_a_value_that_is_refused_is_told_as_a_recipe_has_it(make_recipe: Make) -> None:
    course = Course(make_recipe(), 12)
    for key in ("train.steps", "train.micro_batch_size", "data.skip_steps", "evaluate.every_steps"):
        for value, shown in ((True, "true"), ([1, 2], "[1, 2]"), ({"a": None}, '{"a": null}')):
            with pytest.raises(RecipeError, match=rf"^{key} .* is {re.escape(shown)}; it must"):
                course.with_changes([Change(3, key, value)])
