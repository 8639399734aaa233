"""Rows as points: steps, epochs, restarts."""

import random

import pytest

from etude.errors import InputError
from etude.watch.logs.rows import Row
from etude.watch.logs.steps import runs_of


def points(*rows: dict[str, float]) -> list[tuple[int, float | None, float | None]]:
    (run,) = runs_of([Row(row) for row in rows])
    return [(point.step, point.loss, point.eval_loss) for point in run.points]


def test_what_a_restart_made_void_is_what_a_run_without_it_lacks() -> None:
    draw = random.Random(17)
    for _ in range(200):
        rows, kept, step = [], {}, 0
        for _ in range(60):
            if step > 20 and draw.random() < 0.1:
                step = draw.randrange(11, step)
                kept = {at: loss for at, loss in kept.items() if at <= step}
            step += 1
            kept[step] = draw.random()
            rows.append({"step": float(step), "loss": kept[step]})
        assert points(*rows) == [(at, loss, None) for at, loss in kept.items()]


def test_steps_that_begin_anew_are_another_run() -> None:
    rows = [Row({"step": float(step), "loss": 1.0 + run}) for run in range(3) for step in range(1, 20)]
    runs = runs_of(rows)
    assert [len(run.points) for run in runs] == [19] * 3
    assert [run.points[0].loss for run in runs] == [1.0, 2.0, 3.0]


def test_rows_in_no_order_are_refused() -> None:
    rows = [Row({"step": float(step), "loss": 1.0}) for step in range(100)]
    for order in (rows[::-1], random.Random(17).sample(rows, 100)):
        with pytest.raises(InputError, match=r"steps go back at \d+ of 100 rows"):
            runs_of(order)


def test_an_evaluation_that_comes_late_voids_nothing() -> None:
    found = points(
        {"step": 1, "loss": 3}, {"step": 2, "loss": 2}, {"step": 1, "val_loss": 4}, {"step": 3, "loss": 1}, {"step": 2, "val_loss": 3},
    )  # fmt: skip
    assert found == [(1, 3, 4), (2, 2, 3), (3, 1, None)]


def test_evaluations_whose_step_never_moves_are_of_the_step_before() -> None:
    """A table whose rows of validation all say step 0."""
    rows = [
        row
        for step in range(40)
        for row in (
            {"step": step, "loss": 3.0 - step / 20},
            *([{"step": 0, "val_loss": 4.0 - step / 20}] if step % 10 == 9 else []),
        )
    ]
    evaluations = [(step, loss) for step, _, loss in points(*rows) if loss is not None]
    assert evaluations == [(step, 4.0 - step / 20) for step in (9, 19, 29, 39)]


def test_the_same_step_evaluated_twice_keeps_its_step() -> None:
    rows = [{"step": step, "loss": 3.0} for step in range(1, 5)]
    assert points(*rows[:3], {"step": 2, "val_loss": 4}, {"step": 2, "val_loss": 4}, rows[3]) == [
        (1, 3, None), (2, 3, 4), (3, 3, None), (4, 3, None),
    ]  # fmt: skip


def test_a_row_without_a_step_is_of_the_step_before() -> None:
    assert points({"step": 1, "loss": 3}, {"step": 2, "loss": 2}, {"val_loss": 4}) == [
        (1, 3, None),
        (2, 2, 4),
    ]


def test_a_step_that_is_always_the_same_counts_nothing() -> None:
    (run,) = runs_of([Row({"step": 0.0, "loss": float(9 - row), "lr": 0.1}) for row in range(5)])
    assert run.unit == "row" and [point.step for point in run.points] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("base", [0, 1])
def test_whole_epochs_become_passes_from_the_steps_between_them(base: int) -> None:
    rows = [
        Row({"step": float(step), "epoch": float(base + (step - 1) // 10), "loss": 1.0})
        for step in range(1, 31)
    ]
    (run,) = runs_of(rows)
    assert [point.epoch for point in run.points] == pytest.approx([step / 10 for step in range(1, 31)])
    assert run.facts["steps_per_epoch"] == 10


def test_the_length_of_an_epoch_follows_from_epochs_with_a_fraction() -> None:
    (run,) = runs_of(
        [
            Row({"step": float(step), "epoch": round(step / 137, 2), "loss": 1.0})
            for step in range(10, 500, 10)
        ]
    )
    assert run.facts["steps_per_epoch"] == 137


def test_odd_numbers_for_steps_are_no_steps() -> None:
    found = points(
        {"step": float("nan"), "loss": 9}, {"step": 1, "loss": 3}, {"step": float("inf"), "loss": 2}, {"step": 2, "loss": 1},
    )  # fmt: skip
    assert found == [(0, 9, None), (1, 2, None), (2, 1, None)]


def test_late_evaluations_and_restarts_together_are_as_one_row_after_the_other_has_them() -> None:
    draw = random.Random(18)
    for _ in range(200):
        losses: dict[int, float] = {}
        checks: dict[int, float] = {}
        rows, step = [], 0
        for number in range(60):
            step = (
                draw.randrange(2, step) if step > 9 and draw.random() < 0.1 else step + draw.randrange(1, 3)
            )
            if not losses:
                step = 1
            if losses and step <= max(losses):
                losses = {at: loss for at, loss in losses.items() if at < step}
                checks = {at: loss for at, loss in checks.items() if at < step}
            losses[step] = float(number)
            rows.append({"step": float(step), "loss": float(number)})
            if draw.random() < 0.4:
                at = draw.randrange(1, step + 1)
                checks[at] = number + 0.5
                rows.append({"step": float(at), "val_loss": number + 0.5})
        steps = sorted(losses.keys() | checks.keys())
        assert points(*rows) == [(at, losses.get(at), checks.get(at)) for at in steps]


def test_many_restarts_behind_many_evaluations_are_read_in_a_moment() -> None:
    rows = [{"step": float(step), "val_loss": 2.0} for step in range(100_000)]
    rows += [{"step": 1e5, "loss": 1.0}]
    for _ in range(20_000):
        rows += [{"step": 1e5 + step, "loss": 1.0} for step in (1, 2, 2, 2, 2)]
    rows += [{"step": 1e5 + 9, "loss": 1.0}]
    rows += [{"step": float(step) + 0.4, "val_loss": 3.0} for step in reversed(range(50_000))]
    found = points(*rows)
    assert len(found) == 100_004 and found[7] == (7, None, 3.0)


def test_many_metrics_of_few_rows_each_are_read_in_a_moment() -> None:
    names = [f"eval/word{place}" for place in range(4000)]
    rows = [Row({"step": float(step), "loss": 1.0, names[step]: 0.5}) for step in range(4000)]
    (run,) = runs_of(rows)
    assert [dict(point.metrics) for point in run.points[:2]] == [{"word0": 0.5}, {"word1": 0.5}]
