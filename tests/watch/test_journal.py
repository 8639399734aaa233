"""Points and facts of a run's own journal."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from etude.recipe.load import recipe_from
from etude.records.events import Attempt, Control, DataUsed, Evaluation, Event, Resource, Step
from etude.run import run_recipe
from etude.start import Options
from etude.watch.journal import facts_of, point_of, points_of
from etude.watch.point import Point
from tests.recipes import tiny
from tests.records.samples import attempt, step


def test_in_fp16_each_step_has_its_loss_scale_for_a_mean_loss(tmp_path: Path) -> None:
    text = tmp_path / "text.py"
    text.write_text("".join(f"def f{n}(x):\n    return x * {n} + 1\n" for n in range(120)))
    for precision, scales in (("fp16", {65536.0}), ("fp32", {None})):
        recipe = recipe_from(tiny(text, {"train.precision": precision}))
        run = run_recipe(recipe, Options(runs=tmp_path / precision)).run
        points = [each for each in points_of(entry.event for entry in run.ledger().entries) if each.loss]
        assert {each.loss_scale for each in points} == scales and len(points) == 12
        assert (b"loss_scale" in (run.path / "journal.jsonl").read_bytes()) == (precision == "fp16")


def test_pages_of_files_are_no_memory_that_grows() -> None:
    usage = Resource(3, 1.0, 0.5, 0.1, 90.0, 1000, mapped_bytes=300)
    assert point_of(usage, 10) == Point(step=3, tokens_per_second=1.0, memory_bytes=700)
    older = Resource(3, 1.0, 0.5, 0.1, 90.0, 1000)
    assert point_of(older, 10) == Point(step=3, tokens_per_second=1.0, memory_bytes=1000)


def test_a_real_run_becomes_one_point_for_each_step_and_evaluation(tmp_path: Path) -> None:
    text = tmp_path / "text.py"
    text.write_text("".join(f"def f{n}(x):\n    return x * {n} + 1\n" for n in range(120)))
    run = run_recipe(recipe_from(tiny(text)), Options(runs=tmp_path / "runs")).run
    ledger = run.ledger()
    events: list[Event] = [entry.event for entry in ledger.entries]
    points = list(points_of(events))
    assert [point.step for point in points if point.loss is not None] == list(range(1, 13))
    assert [point.step for point in points if point.eval_loss is not None] == [6, 12]
    steps = [event for event in events if isinstance(event, Step)]
    trained = [point for point in points if point.loss is not None]
    for name in ("loss", "grad_norm", "learning_rate", "targets", "seconds", "skipped"):
        assert [getattr(point, name) for point in trained] == [getattr(each, name) for each in steps]
    assert all(point.epoch is not None and point.epoch >= 0 for point in points if point.loss is not None)
    assert any(point.memory_bytes and point.tokens_per_second for point in points)
    started = next(event for event in events if isinstance(event, Attempt))
    data = next(event for event in events if isinstance(event, DataUsed))
    facts = facts_of(run.recipe, started, data)
    assert facts.steps == 12 and facts.is_pretrained is False and facts.objective == "causal"
    assert facts.train_rows and facts.eval_rows and facts.memory_limit_bytes
    assert facts.classes and steps[0].loss == pytest.approx(math.log(facts.classes), abs=0.5)


def test_the_epoch_is_the_share_of_steps_and_stays_within_that_of_the_record() -> None:
    def epoch(number: int, recorded: int) -> float | None:
        point = point_of(step(number)._replace(epoch=recorded), 5)
        return point and point.epoch

    assert [epoch(number, (number - 1) // 5) for number in (1, 5, 6, 10)] == [0.2, 1.0, 1.2, 2.0]
    assert epoch(4, 2) == 2  # the batches of six steps were left out
    assert epoch(30, 2) == 3


def test_of_a_resource_record_speed_and_memory_are_taken_and_a_clock_that_stood_still_is_unknown() -> None:
    on_cpu = Resource(3, 100.0, 0.1, 0.0, 99.0, 1000)
    on_gpu = on_cpu._replace(tokens_per_second=math.nan, gpu_memory_bytes=7)
    first, second = point_of(on_cpu, 5), point_of(on_gpu, 5)
    assert first and (first.tokens_per_second, first.memory_bytes) == (100.0, 1000)
    assert second and (second.tokens_per_second, second.memory_bytes) == (None, 7)


def test_metrics_without_a_value_and_records_of_other_types_are_left_out() -> None:
    evaluation = Evaluation(5, 1.5, 4.5, None, 10, 0.1, True, {"f1": 0.5, "bleu": math.nan})
    point = point_of(evaluation, 5)
    assert point and point.eval_loss == 1.5 and point.metrics == {"f1": 0.5} and point.loss is None
    assert point_of(Control(5, "stop", "enough"), 5) is None
    assert list(points_of([step(1)])) == []  # without an attempt, the length of an epoch is unknown


def test_facts_that_the_start_does_not_tell_are_unknown(tmp_path: Path) -> None:
    recipe = recipe_from(tiny(tmp_path / "text.py"))
    bare = facts_of(recipe, attempt(1, 0))
    assert bare.train_rows is bare.eval_rows is bare.classes is bare.memory_limit_bytes is None
    assert facts_of(recipe, attempt(1, 0), has_first_weights=True).is_pretrained is True
    own = replace(attempt(1, 0), environment={"own_code": {"loss": "x", "model": "y"}})
    sized = DataUsed("", {"vocab_size": 300, "train": {"samples": 8}, "validation": None})
    assert facts_of(recipe, attempt(1, 0), sized).classes == 300
    assert facts_of(recipe, own, sized).classes is facts_of(recipe, own, sized).is_pretrained is None
    on_gpus = {"machine": {"memory_bytes": 9, "gpus": [{"memory_bytes": 8}, {"memory_bytes": 7}]}}
    assert facts_of(recipe, replace(attempt(1, 0), environment=on_gpus)).memory_limit_bytes == 9
    on_cuda = replace(attempt(1, 0), environment=on_gpus, device="cuda")
    assert facts_of(recipe, on_cuda).memory_limit_bytes == 7
