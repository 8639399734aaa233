"""Other tools get of a curve what they read, and their rules alarm where their descriptions say."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from watch.doctors import TOOLS, feeds
from watch.peers import Log, delay_of, is_found, rows_of, score
from watch.rules import RULES, lightning, patience, sagemaker, zclip

from etude.watch.point import Point

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PYTHON = BENCHMARKS / ".work" / "watch-peers" / "bin" / "python"
installed = pytest.mark.skipif(not PYTHON.exists(), reason="the environment of the peers is not made")


def run(losses: list[float], evaluations: dict[int, float] | None = None) -> list[Point]:
    """A run with every figure, and evaluations after some steps."""
    points = []
    for step, loss in enumerate(losses, 1):
        points.append(
            Point(
                step=step, epoch=step / 100, loss=loss, grad_norm=1 + 0.1 * math.sin(step), seconds=0.1,
                learning_rate=1e-3 * min(step / 10, 1), wait_seconds=0.001, tokens_per_second=1e4,
                memory_bytes=2**30, update_ratio=1e-3,
            )
        )  # fmt: skip
        if evaluations and step in evaluations:
            points.append(Point(step=step, epoch=step / 100, eval_loss=evaluations[step]))
    return points


def falling(steps: int = 100) -> list[float]:
    return [3 * step**-0.3 + 0.01 * math.sin(step * step) for step in range(1, steps + 1)]


def test_an_evaluation_is_a_row_of_its_own_and_for_gradsnitch_part_of_its_step() -> None:
    rows = rows_of(run([2.0, 1.5, 1.2], {2: 1.9}))
    assert [(row["step"], row.get("loss"), row.get("eval_loss")) for row in rows] == [
        (1, 2.0, None), (2, 1.5, None), (2, None, 1.9), (3, 1.2, None)
    ]  # fmt: skip
    assert set(rows[0]) == {
        "step", "epoch", "loss", "grad_norm", "learning_rate", "step_time", "data_time",
        "tokens_per_second", "host_memory", "update_ratio",
    }  # fmt: skip
    fed = feeds(rows)
    assert [(feed["step"], feed["loss"], feed["val_loss"]) for feed in fed] == [
        (1, 2.0, None), (2, 1.5, 1.9), (3, 1.2, None)
    ]  # fmt: skip
    assert fed[0]["lr"] == pytest.approx(1e-4) and fed[0]["update_ratio"] == 1e-3
    first = feeds(rows_of([Point(step=0, eval_loss=2.5), *run([2.0, 1.5])]))
    assert [feed["val_loss"] for feed in first] == [2.5, None]


def test_patience_ends_a_run_after_so_many_evaluations_without_a_better_one() -> None:
    points = run([1.0] * 60, {10: 2.0, 20: 1.8, 30: 1.9, 40: 1.7, 50: 1.71, 60: 1.7})
    assert patience(points, 1) == [(30, "patience of 1")]
    assert patience(points, 2) == [(60, "patience of 2")]
    assert patience(points, 3) == []
    assert patience(run([1.0] * 40, {10: 2.0, 20: math.nan, 30: 1.9, 40: 1.8}), 2) == []


def test_zclip_clips_what_is_over_two_and_a_half_deviations_after_25_norms() -> None:
    norms = [1.0, 1.2] * 13 + [1.1, 1.3, 1.4]  # mean 1.1 and deviation 0.1, so that it clips over 1.35
    points = [Point(step=step, grad_norm=norm) for step, norm in enumerate(norms)]
    assert [step for step, _ in zclip(points)] == [28]
    assert not zclip(points[:24])


def test_lightning_ends_a_run_at_three_times_the_mean_of_ten_losses() -> None:
    assert not lightning(run([1.0] * 10 + [2.9]))
    assert lightning(run([1.0] * 10 + [3.1, 9.0])) == [(11, "spike")]
    assert lightning(run([2.0, math.nan])) == [(2, "spike")]


def test_rules_of_sagemaker_alarm_once_each() -> None:
    assert sagemaker(run(falling(), {20: 1.2, 40: 1.0, 60: 0.9})) == []
    worse = run(falling(), {20: 1.2, 40: 1.3, 60: 1.4})
    assert sagemaker(worse) == [(40, "LossNotDecreasing"), (40, "Overfit")]
    assert sagemaker(run([1.0] * 25)) == [(11, "LossNotDecreasing")]
    assert sagemaker([Point(step=3, grad_norm=math.inf)]) == [(3, "ExplodingTensor")]
    assert sagemaker([Point(step=3, grad_norm=0.0, update_ratio=0.0)]) == [
        (3, "VanishingGradient"), (3, "WeightUpdateRatio")
    ]  # fmt: skip


def test_an_alarm_counts_from_the_onset_on_and_one_of_a_finished_log_always() -> None:
    healthy, faulty = Log("a", "made", "healthy", run([1.0], {1: 1.0})), Log("b", "made", "x", [], onset=80)
    said: dict[str, Any] = {"a": [(5, "r")], "b": [(70, "r"), (95, "r")]}
    assert is_found(faulty, said) and delay_of(faulty, said) == 15
    figures = score([healthy, faulty], said)
    assert figures["found_within"]["10"][:2] == [0, 1] and figures["found_within"]["50"][:2] == [1, 1]
    assert figures["healthy_flagged"][:2] == [1, 1] and figures["false_alarms_per_1000_evaluations"] == 1000
    assert figures["alarms_before_onset"][:2] == [1, 1]
    assert not is_found(faulty, {"b": [(70, "r")]}) and is_found(faulty, {"b": [(None, "r")]})


@installed
def test_each_log_doctor_knows_the_figures_of_a_row(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = rows_of(run(falling(), {50: 1.0, 100: 0.9}))
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def said(code: str) -> str:
        command = [str(PYTHON), "-I", "-c", f"import sys; PATH = {str(log)!r}; {code}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    roles = said("from runmedic.cli import main; main(['series', PATH])")
    for role in (
        "train_loss",
        "val_loss",
        "lr",
        "grad_norm",
        "step_time",
        "data_time",
        "throughput",
        "host_mem",
    ):
        assert role in roles, roles
    names = said("from trainspotter.readers import load_run; print(load_run(PATH).metric_names())")
    assert {"train/loss", "eval/loss", "lr", "grad_norm", "step_time", "throughput"} <= set(
        json.loads(names.replace("'", '"'))
    )
    series = said("from losslint.cli import main; main(['check', PATH, '--format', 'json'])")
    assert {"loss", "eval_loss", "grad_norm"} <= set(json.loads(series)["runs"][0]["series"])


@installed
@pytest.mark.parametrize("tool", TOOLS)
def test_each_log_doctor_alarms_at_losses_that_are_not_finite(tool: str, tmp_path: Path) -> None:
    logs = {"calm": falling(), "broken": [*falling(60), *[math.nan] * 40]}
    asked, answer = tmp_path / "asked.json", tmp_path / "said.json"
    asked.write_text(
        json.dumps({name: {"rows": rows_of(run(losses)), "grows": True} for name, losses in logs.items()})
    )
    command = [str(PYTHON), "-I", str(BENCHMARKS / "watch" / "doctors.py"), tool, str(asked), str(answer)]
    subprocess.run(command, check=True, capture_output=True)
    said = json.loads(answer.read_text())
    assert said["calm"] == {"finished": [], "growing": [], "error": None}
    assert said["broken"]["finished"]
    growing = [alarm["step"] for alarm in said["broken"]["growing"]]
    assert growing == [] if tool == "runmedic" else growing[0] == 80


def test_the_rules_are_silent_on_a_log_without_figures() -> None:
    assert not any(rule([]) or rule([Point(step=1)]) for rule in RULES.values())
