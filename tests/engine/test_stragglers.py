"""The rank that keeps the others waiting is named, once, and its time is in the record."""

import json
from collections.abc import Callable
from pathlib import Path

from etude.engine.stragglers import Stragglers
from etude.recipe.schema import Recipe
from etude.records.events import Finding, Resource
from etude.records.store import list_runs
from tests.programs import run_program


def test_a_rank_has_to_be_slow_several_times_in_a_row() -> None:
    stragglers = Stragglers()
    slow, even = [10_000, 30_000, 11_000, 9_000], [10_000, 11_000, 10_000, 9_000]
    found = [stragglers.judge(step, told) for step, told in enumerate([*[slow] * 4, even, *[slow] * 6])]
    assert [len(each) for each in found] == [*[0] * 9, 1, 0]
    assert found[9][0].kind == "slow_rank"
    wanted = "rank 1 takes 0.03 s of its own in a step, the median of 4 ranks is 0.01 s"
    assert found[9][0].evidence == wanted
    assert stragglers.times == (1, 0.03, 0.01)


def test_nobody_judges_times_that_a_rank_does_not_know() -> None:
    stragglers = Stragglers()
    assert not any(stragglers.judge(step, [0, 10_000]) for step in range(9)) and stragglers.times is None


def test_a_run_names_its_slow_rank(tmp_path: Path, cache: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe({
        "train.steps": 7, "train.devices": 2, "train.micro_batch_size": 1, "records.log_every_steps": 1,
        "evaluate.every_steps": 7,
    })  # fmt: skip

    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    done = run_program("engine/slow", [tmp_path], cache)
    assert done.code == 0, done.err
    (run,) = list_runs(tmp_path / "runs")
    records = [entry.event for entry in run.ledger().entries]
    found = [each for each in records if isinstance(each, Finding) and each.kind == "slow_rank"]
    assert [each.what for each in found] == ["rank 1 keeps the others waiting"]
    last = [each for each in records if isinstance(each, Resource)][-1]
    assert last.slowest_rank == 1 and last.slowest_seconds is not None and last.slowest_seconds > 1
