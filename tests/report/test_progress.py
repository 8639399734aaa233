"""The figures of a run that goes on, and the time that is left."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from etude.control.signals import stopping
from etude.records.events import CheckpointSaved, Control, Evaluation, Event, Generation, Step
from etude.report.progress import Pace, Progress
from tests.report.runs import attempt, evaluation, loss_at, new_run, window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("etude.report.progress.time.monotonic", lambda: now[0])
    return now


def progress_of(path: Path, events: list[Event], changes: dict[str, Any] | None = None) -> Progress:
    run = new_run(path, changes).run
    progress = Progress(run.name, run.recipe)
    for event in events:
        progress.write(event)
    return progress


def test_the_time_left_is_steps_evaluations_that_are_due_and_the_share_of_saving(
    tmp_path: Path, clock: list[float]
) -> None:
    pace = Pace(new_run(tmp_path, {"evaluate.every_steps": 15}).run.recipe)
    for event in (attempt(), *window(1, 10, seconds=100.0)):
        pace.write(event)
    assert pace.remaining() == pytest.approx(30 * 100) and pace.words() == "over 50 min 00 s left"
    for event in [*window(11, 15, seconds=100.0), Evaluation(15, 2.0, 7.4, None, 10, 500.0, True)]:
        pace.write(event)
    # Evaluations are due after steps 30 and 40, the last.
    assert pace.remaining() == pytest.approx(25 * 100 + 2 * 500) and pace.words().startswith("about ")
    pace.write(CheckpointSaved(15, "step-000015", 10, 30.0, 1.0))
    assert pace.remaining() == pytest.approx(25 * (100 + 30 / 15) + 2 * 500)
    pace.write(Step(16, 0, 2.0, 1.0, 1e-3, 100, 8, 9999.0, 0.0))
    assert pace.remaining() == pytest.approx(24 * (100 + 30 / 16) + 2 * 500)  # one slow step is passed over
    clock[0] += 60
    assert pace.remaining() == pytest.approx(24 * (100 + 30 / 16) + 2 * 500 - 60)
    pace.write(attempt(2, 15))
    assert pace.remaining() is None and pace.words() == ""


def test_without_validation_nothing_waits_for_an_evaluation(tmp_path: Path) -> None:
    pace = Pace(new_run(tmp_path, {"data.validation": "none"}).run.recipe)
    for event in (attempt(), *window(1, 10, seconds=100.0)):
        pace.write(event)
    assert pace.words().startswith("about ")


def test_a_paused_run_says_so_until_it_goes_on_whatever_it_is_asked_meanwhile(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, [attempt(), *window(1, 10, seconds=100.0)])
    said = []
    for action in ("pause", "checkpoint", "resume"):
        progress.write(Control(10, action, ""))
        said.append(progress.rest)
    assert said[:2] == ["paused", "paused"] and said[2].endswith(" left")


def test_the_speed_is_known_before_the_first_log_line(tmp_path: Path) -> None:
    steps = window(1, 4, seconds=2.0)[:-1]  # of 101 to 104 targets, where no tokens are recorded
    progress = progress_of(tmp_path, [attempt(), *steps])
    assert progress.tokens_per_second == pytest.approx((101 + 102 + 103 + 104) / 8)


def test_each_step_is_kept_and_joined_to_its_neighbour_where_they_are_many(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, [attempt(steps=5000), *window(1, 4001)])
    assert len(progress.losses) == 2000
    assert progress.losses[0] == (2, pytest.approx((loss_at(1) + loss_at(2)) / 2))
    assert progress.losses[-1][0] == 4000


def test_losses_that_are_joined_are_so_in_all_parts_of_a_run(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, [attempt(steps=20_000), *window(1, 10_001)])
    steps = [step for step, _ in progress.losses]
    assert len(steps) == 2500 and {later - step for step, later in itertools.pairwise(steps)} == {4}
    assert progress.losses[-1][1] == pytest.approx(sum(map(loss_at, range(9997, 10_001))) / 4)


def test_the_gap_and_the_training_loss_are_those_that_show_prints(tmp_path: Path) -> None:
    """By hand: the mean of the last five steps, a log window of this recipe, weighted by their targets."""
    progress = progress_of(tmp_path, [attempt(), *window(1, 12), evaluation(12, 3.0)])
    weights = {step: 100 + step for step in range(8, 13)}
    mean = sum(loss_at(step) * weight for step, weight in weights.items()) / sum(weights.values())
    assert progress.training_loss == pytest.approx(mean)
    assert progress.gap == pytest.approx(3.0 - mean)


def test_the_best_is_by_the_metric_of_the_recipe_and_never_the_model_that_was_given(tmp_path: Path) -> None:
    def scored(step: int, loss: float, f1: float, *, best: bool) -> Evaluation:
        return Evaluation(step, loss, 7.0, None, 10, 1.0, best, {"f1": f1})

    changes = {
        "evaluate.metric": "f1", "train.objective": "classification", "model.kind": "encoder",
        "data.train": [{"path": "a.jsonl", "label": "label", "field": "text"}],
    }  # fmt: skip
    records = [
        attempt(), scored(0, 1.0, 0.9, best=False), *window(1, 5), scored(5, 2.0, 0.5, best=True),
        scored(10, 1.5, 0.4, best=False),
    ]  # fmt: skip
    progress = progress_of(tmp_path, records, changes)
    assert progress.best and (progress.best.step, progress.value(progress.best)) == (5, 0.5)


def test_the_texts_are_those_of_the_last_evaluation_and_begin_with_the_prompts_of_the_recipe(
    tmp_path: Path,
) -> None:
    texts = [
        Generation(step, prompt, "", {}, reference)
        for step in (5, 10)
        for prompt, reference in (("question", "right"), ("mine", None))
    ]
    progress = progress_of(tmp_path, [attempt(), *texts])
    assert [(text.step, text.prompt) for text in progress.samples] == [(10, "mine"), (10, "question")]


def test_a_restart_takes_back_what_no_longer_counts_and_time_adds_up(
    tmp_path: Path, clock: list[float]
) -> None:
    run = new_run(tmp_path).run
    progress = Progress(run.name, run.recipe, before=300.0)
    records = [attempt(), *window(1, 5), *window(6, 10), evaluation(10, 2.0), Generation(10, "p", "t", {})]
    for event in [*records, Control(10, "stop", "SIGINT")]:
        progress.write(event)
    clock[0] += 20
    progress.write(attempt(2, 5))
    assert (progress.step, [step for step, _ in progress.losses]) == (5, [1, 2, 3, 4, 5])
    assert (progress.evaluations, progress.samples, progress.control) == ([], [], None)
    assert progress.elapsed == 320.0


def test_a_signal_is_answered_by_what_comes_of_it() -> None:
    assert stopping("SIGINT").startswith("Ctrl-C: saves and stops")
    assert stopping("SIGTERM").startswith("SIGTERM: saves and stops")
