"""The forecast of a run: what it counts is what the run then does, and what it says is near to it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etude.models.cost import Cost
from etude.plan import Plan, make_plan
from etude.plan.forecast import (
    Costs,
    Pace,
    assume_costs,
    beside_seconds,
    checkpoint_bytes,
    count_evaluations,
    forecast,
    spread_of,
)
from etude.plan.work import evaluation_work, final_work
from etude.recipe.schema import Recipe
from etude.records.events import CheckpointSaved, Forecast
from etude.records.store import Run
from etude.report.history import read_history
from etude.report.summary import describe, summarize
from etude.run import run_recipe
from etude.start import Options
from tests import bases, recipes

Make = Callable[..., Recipe]
KINDS = ["finetuning", "classification", "seq2seq"]


def of_kind(kind: str, folder: Path) -> Recipe:
    if kind == "finetuning":
        rows, base = bases.write_instructions(folder / "rows.jsonl", 30), bases.write_qwen2(folder / "base")
        texts = {"evaluate.answers": 3, "evaluate.answer_tokens": 6, "evaluate.prompts": ["def "]}
        return recipes.finetuning(rows, base, texts)
    if kind == "classification":
        return recipes.classification(bases.write_labelled(folder / "rows.jsonl", 60))
    return recipes.seq2seq(bases.write_pairs(folder / "rows.jsonl", 40))


def disk_of(run: Run) -> int:
    """Bytes of checkpoints and records; report and index are made from them."""
    folders = [path for path in run.path.iterdir() if path.name not in ("report", "journal.index")]
    files = [file for path in folders for file in (path, *path.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_forecast_is_what_the_run_does(kind: str, tmp_path: Path) -> None:
    recipe = of_kind(kind, tmp_path)
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    plan, history = make_plan(recipe), read_history(run)
    assert count_evaluations(plan) == len(history.evaluations)
    assert count_evaluations(plan) * evaluation_work(plan).texts == len(history.generations)
    assert bool(final_work(plan).samples) == bool(history.scores)
    before, said = history.events(Forecast)
    assert before.step == 0 and before.disk_bytes > 0
    assert said.step == 10 or said.seconds > 2  # after ten steps, or fewer that take some seconds
    assert disk_of(run) / 1.5 < said.disk_bytes < 1.5 * disk_of(run)
    assert said.disk_bytes == forecast(plan, Costs(step_seconds=0.0, sample_seconds=0.0, token_seconds=0.0,
                                                   memory_bytes=0)).disk_bytes  # fmt: skip


def test_the_forecast_stands_beside_what_was_measured(make_recipe: Make, tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    summary, rows = summarize(run), dict(describe(summarize(run)))
    assert (
        summary["forecast_memory_bytes"]
        < 2 * summary["peak_rss_bytes"]
        < 4 * summary["forecast_memory_bytes"]
    )
    assert summary["disk_bytes"] == disk_of(run)
    assert summary["estimate_memory_bytes"] == pytest.approx(summary["peak_rss_bytes"], rel=0.3)
    said, measured = rows["forecast"].split("; measured ")
    assert said.startswith("about ") and said.endswith(" on disk") and measured.count(", ") == 2


def test_an_old_run_has_no_forecast(make_recipe: Make, tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    journal = run.path / "journal.jsonl"
    lines = [line for line in journal.read_text().splitlines(True) if json.loads(line)["type"] != "forecast"]
    assert len(lines) == len(journal.read_text().splitlines()) - 2
    journal.write_text("".join(lines))
    assert summarize(run)["forecast_seconds"] is None and "forecast" not in dict(describe(summarize(run)))


def test_time_is_that_of_steps_samples_and_texts(tmp_path: Path) -> None:
    plan = make_plan(of_kind("finetuning", tmp_path))
    costs = Costs(
        step_seconds=2.0, sample_seconds=0.1, token_seconds=0.01, memory_bytes=7, checkpoint_seconds=0.25,
        start_seconds=3.0, write_seconds=0.125, ready_seconds=5.0,
    )  # fmt: skip
    said = forecast(plan, costs)
    held_out = len(plan.corpus.validation or ())
    # 20 steps; before, at 10 and at 20 an evaluation, of all held-out samples, 6 tokens of answers, 64 of a prompt;
    # to read the prompt of each of the 4 texts takes a fifth of the loss of a sample.
    # A checkpoint comes every five steps; its files are written during the next steps, the last ones at the end.
    evaluations = 3 * (0.1 * (held_out + 0.2 * 4) + 0.01 * (6 + 64))
    assert said.checkpoint_seconds == 4 * 0.25 + 0.125
    assert said.evaluation_seconds == pytest.approx(evaluations + 3.0 + said.checkpoint_seconds)
    assert said.seconds == pytest.approx(20 * 2.0 + said.evaluation_seconds) and said.memory_bytes == 7
    assert beside_seconds(costs) == 5.0 + 1.0, "a second for the report"


def test_writing_weighs_more_in_a_tiny_model_than_in_one_whose_time_is_products(tmp_path: Path) -> None:
    plan = make_plan(of_kind("finetuning", tmp_path))
    tiny = assume_costs(plan, 1.0, 0)
    assert 0.05 < tiny.token_seconds < 0.12, "measured: 0.05 of a step, most of both being calls"
    cost = Cost(2000 * plan.cost.per_token, 2000 * plan.cost.per_target)
    large = assume_costs(replace(plan, cost=cost), 1.0, 0)
    assert large.token_seconds == 0.3 * large.sample_seconds < tiny.token_seconds


def test_memory_grows_by_kernels_of_other_lengths_on_a_cpu_in_bf16_only(
    tmp_path: Path, make_recipe: Make
) -> None:
    varied, even = make_plan(of_kind("finetuning", tmp_path)), make_plan(make_recipe())

    def grown(plan: Plan, precision: str, tried: int, steps: int) -> int:
        costs = Costs(step_seconds=1.0, sample_seconds=0.0, token_seconds=0.0, memory_bytes=0, tried=tried)
        return forecast(replace(plan, precision=precision, steps=steps), costs).memory_bytes

    # Steps of a decoder of two layers: 211 MB more after 8 of them, 590 MB after 30 and after 200.
    assert grown(varied, "bf16", 0, 8) == pytest.approx(211e6, rel=0.25)
    assert grown(varied, "bf16", 0, 200) == pytest.approx(590e6, rel=0.1)
    assert grown(varied, "bf16", 8, 200) == pytest.approx(590e6 - 211e6, rel=0.15)
    assert grown(varied, "bf16", 72, 72) == grown(varied, "fp32", 0, 72) == grown(even, "bf16", 0, 72) == 0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_checkpoint_holds_weights_and_the_state_of_the_optimizer(
    kind: str, make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe({"optim.kind": kind, "train.steps": 2})
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    saved = read_history(run).events(CheckpointSaved)[-1]
    assert checkpoint_bytes(make_plan(recipe)) == pytest.approx(saved.size, rel=0.1)


def test_fewer_checkpoints_are_kept_than_made(make_recipe: Make) -> None:
    plan = make_plan(make_recipe({"train.steps": 1000, "checkpoint.every_steps": 10, "checkpoint.keep": 2}))
    nothing = Costs(step_seconds=0.0, sample_seconds=0.0, token_seconds=0.0, memory_bytes=0)
    every = plan.recipe.checkpoint.model_copy(update={"keep": "all"})
    kept_all = replace(plan, recipe=plan.recipe.model_copy(update={"checkpoint": every}))
    difference = forecast(kept_all, nothing).disk_bytes - forecast(plan, nothing).disk_bytes
    files = sum(map(len, plan.corpus.tokenizer.files().values()))
    made = max(100, -(-1000 // 6))  # every evaluation may be the best so far
    assert difference == (made - 3) * (12 * plan.trainable + files)  # the two newest, and the best


def test_a_pace_is_known_once_after_some_steps(make_recipe: Make) -> None:
    plan = make_plan(make_recipe())
    pace = Pace(plan)
    assert [pace.add_step(number, seconds) for number, seconds in ((1, 9.0), (2, 1.0), (3, 1.0), (4, 1.0))] == [
        False, False, True, False,
    ]  # fmt: skip
    said = pace.forecast(1)
    assert said.step == 3
    in_steps = said.seconds - said.evaluation_seconds
    assert in_steps == pytest.approx(12.0), "not the slow first, whose 8 s more are the start"
    assert 8.0 <= said.evaluation_seconds < 10.0 and said.interval[0] < said.seconds < said.interval[1]
    quick = Pace(plan)
    assert [quick.add_step(number, 0.01) for number in range(1, 13)].index(True) == 9
    resumed = Pace(plan)
    assert not any(resumed.add_step(number, 1.0) for number in range(5, 12))


def test_a_measured_evaluation_is_believed(make_recipe: Make) -> None:
    pace = Pace(make_plan(make_recipe()))
    pace.add_evaluation(5.0)
    for number in range(1, 4):
        pace.add_step(number, 1.0)
    without = Pace(pace.plan)
    for number in range(1, 4):
        without.add_step(number, 1.0)
    plain = Costs(step_seconds=1.0, sample_seconds=0.0, token_seconds=0.0, memory_bytes=0, start_seconds=0.0)
    rest = forecast(pace.plan, plain).evaluation_seconds
    assert pace.forecast(1).evaluation_seconds == pytest.approx(2 * 5.0 + rest, abs=0.1)  # at 6 and at 12


def test_a_forecast_that_is_made_again_does_not_take_the_time_since_for_that_of_its_steps(
    make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace(make_plan(make_recipe()))
    for number in range(1, 4):
        pace.add_step(number, 1.0)
    before, later = pace.forecast(1), time.perf_counter() + 3600
    monkeypatch.setattr("time.perf_counter", lambda: later)
    assert pace.forecast(1) == before


def test_checkpoints_that_were_waited_for_are_believed(make_recipe: Make) -> None:
    plan = make_plan(make_recipe({"checkpoint.every_steps": 1}))
    assumed, measured = Pace(plan), Pace(plan)
    for number in range(1, 4):
        measured.add_checkpoint(0.7, 1.5)
        for pace in (assumed, measured):
            pace.add_step(number, 1.0)
    # Each step takes one second, and half a second more goes by until the files are written; the end waits for all.
    assert measured.forecast(1).checkpoint_seconds == pytest.approx(12 * 0.7 + 11 * 0.5 + 1.5, rel=0.01)
    assert 0 < assumed.forecast(1).checkpoint_seconds < 1.0


def test_steps_that_differ_widen_the_interval() -> None:
    even, odd = spread_of([1.0] * 9), spread_of([0.5, 1.5] * 4)
    assert even == (0.9, 1.1) and odd[0] < 0.75 and odd[1] > 1.25 and spread_of([]) == (0.9, 1.1)
