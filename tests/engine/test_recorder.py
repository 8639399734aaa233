"""Figures of steps become records: losses by targets, rates by hand, and ends of runs that are broken."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etude.engine.loop import Step
from etude.engine.recorder import Recorder
from etude.errors import FaultError
from etude.models.cost import Cost
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.store import RunWriter, create_run

CPU = torch.device("cpu")


def step(number: int, loss: float, targets: float, *, skipped: float = 0, broken: float = 0) -> Step:
    measured = torch.tensor([loss, targets, 40.0, 1.5, skipped, broken, 40.0])
    return Step(number, 0, 1e-3, samples=8, seconds=0.5, wait_seconds=0.1, measured=measured)


@pytest.fixture
def writer(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Iterator[RunWriter]:
    writer = create_run(tmp_path / "runs", make_recipe())
    yield writer
    writer.close("stopped")


@pytest.fixture
def recorder(writer: RunWriter) -> Iterator[Recorder]:
    recorder = Recorder(writer, device=CPU, cost=Cost(10.0, 1.0), matrix_rate=1000.0)
    yield recorder
    recorder.close()


def records(writer: RunWriter, kind: type) -> list[events.Event]:
    return [entry.event for entry in writer.run.ledger().entries if isinstance(entry.event, kind)]


def test_a_log_step_has_the_loss_a_target_and_the_rates_of_its_steps(
    writer: RunWriter, recorder: Recorder
) -> None:
    for number in (1, 2):
        recorder.add(step(number, 30.0 * number, 20.0))
    recorder.log()
    assert [each.loss for each in records(writer, events.Step)] == [1.5, 3.0]  # type: ignore[union-attr]
    (usage,) = records(writer, events.Resource)
    assert isinstance(usage, events.Resource) and usage.step == 2
    assert (usage.tokens_per_second, usage.wait_ratio) == (80.0, 0.2)
    assert usage.mfu == pytest.approx((80 * 10.0 + 40 * 1.0) / (1.0 * 1000.0), abs=1e-4)
    assert usage.rss_bytes > 1 << 20


def test_an_eighth_figure_is_the_loss_scale(writer: RunWriter, recorder: Recorder) -> None:
    plain = step(1, 30.0, 20.0)
    recorder.add(replace(plain, measured=torch.cat((plain.measured, torch.tensor([4096.0])))))
    recorder.log()
    recorder.add(step(2, 30.0, 20.0))
    recorder.log()
    scales = [each.loss_scale for each in records(writer, events.Step)]  # type: ignore[union-attr]
    assert scales == [4096.0, None]


def test_slow_steps_are_written_down_before_their_log_line(
    writer: RunWriter, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("etude.engine.recorder.time.monotonic", lambda: clock[0])
    recorder.add(step(1, 30.0, 20.0))
    recorder.drain()
    for number, moment, written in ((2, 0.5, 1), (3, 1.5, 3), (4, 2.0, 3)):
        clock[0] = moment
        recorder.add(step(number, 30.0, 20.0))
        recorder.drain_late()
        assert len(records(writer, events.Step)) == written


def test_the_loss_since_a_save_weighs_steps_by_targets_and_leaves_out_skipped_ones(
    recorder: Recorder,
) -> None:
    recorder.add(step(1, 10.0, 10.0))
    recorder.add(step(2, 90.0, 30.0))
    recorder.add(step(3, 1e9, 1.0, skipped=1))
    recorder.drain()
    assert recorder.loss_since_save() == pytest.approx(100 / 40)
    assert math.isnan(recorder.loss_since_save())
    recorder.add(step(4, 10.0, 10.0))
    recorder.drain()
    recorder.forget()
    assert math.isnan(recorder.loss_since_save())


def test_weights_that_are_not_finite_end_the_run_with_a_finding(
    writer: RunWriter, recorder: Recorder
) -> None:
    recorder.add(step(1, 10.0, 10.0))
    recorder.add(step(2, 10.0, 10.0, broken=1))
    with pytest.raises(FaultError, match=r"the update of step 2 made some weights infinite or NaN; they"):
        recorder.drain()
    assert [each.what for each in records(writer, events.Finding)] == ["non-finite weights"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("precision", "wider"),
    [("fp32", ""), ("bf16", ", or train.precision fp32"), ("fp16", ", or train.precision bf16 or fp32")],
)
def test_no_run_is_advised_to_take_the_precision_that_it_has(precision: str, wider: str) -> None:
    recorder = Recorder(None, device=CPU, cost=Cost(10.0, 1.0), matrix_rate=1.0, precision=precision)
    for number in range(1, 51):
        recorder.add(step(number, math.nan, 10.0, skipped=1))
    with pytest.raises(FaultError, match=f"nothing; lower optim.learning_rate{wider}, and start again"):
        recorder.drain()
    recorder.close()


def test_findings_of_the_watch_follow_what_they_rest_on(writer: RunWriter, recorder: Recorder) -> None:
    def watch(found: Sequence[events.Event]) -> list[events.Event]:
        steps = [each for each in found if isinstance(each, events.Step)]
        return [events.Finding(each.step, "odd", "", "") for each in steps if each.step % 2]

    recorder.watch = watch
    for number in range(1, 5):
        recorder.add(step(number, 5.0, 10.0))
    recorder.drain()
    kept = [(type(each).__name__, each.step) for each in records(writer, events.Event)]  # type: ignore[union-attr, arg-type]
    assert kept[-6:] == [*(("Step", number) for number in range(1, 5)), ("Finding", 1), ("Finding", 3)]


def test_fifty_skipped_steps_in_a_row_end_the_run_and_fewer_do_not() -> None:
    recorder = Recorder(None, device=CPU, cost=Cost(10.0, 1.0), matrix_rate=1.0)
    for number in range(1, 150):
        recorder.add(step(number, math.nan, 10.0, skipped=float(number % 50 != 0)))
    recorder.drain()
    for number in range(150, 200):
        recorder.add(step(number, math.nan, 10.0, skipped=1))
    with pytest.raises(FaultError, match="the last 99 steps had no finite loss"):
        recorder.drain()
    recorder.close()
