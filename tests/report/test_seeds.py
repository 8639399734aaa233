import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t, ttest_ind

from etude.records.events import Control, DataUsed, Scores
from etude.records.store import Run
from etude.report.compare import compare_runs
from etude.scores.intervals import difference_of_means
from tests.report.runs import attempt, evaluation, new_run, window

A, B = [0.81, 0.84, 0.79, 0.86, 0.80], [0.85, 0.88, 0.91]


def scored(
    runs: Path, f1: float, changes: dict[str, Any], state: str = "finished", data: str = "f" * 64
) -> Run:
    writer = new_run(runs, changes)
    writer.append(attempt(), DataUsed(data, {}), *window(1, 5), evaluation(5, 2.5))
    writer.append(Scores(5, 50, "test", "f1", {"after": {"f1": [f1, f1 - 0.1, f1 + 0.1]}}, {}))
    writer.append(Control(5, "finish", "the last step is done"))
    writer.close(state)
    return writer.run


def test_the_band_of_two_groups_is_the_interval_of_welch(tmp_path: Path) -> None:
    runs = [scored(tmp_path, value, {"seed": 17 + index}) for index, value in enumerate(A)]
    runs += [
        scored(tmp_path, value, {"seed": 3 + index, "optim.learning_rate": 1e-3})
        for index, value in enumerate(B)
    ]
    found = compare_runs(runs)
    assert [group.seeds for group in found.groups] == [[17, 18, 19, 20, 21], [3, 4, 5]]
    first, second = found.noise["test_f1"]
    assert (first.mean, first.deviation) == pytest.approx((statistics.mean(A), statistics.stdev(A)))
    assert (first.low, first.high, first.difference) == (0.79, 0.86, None)
    welch = ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert second.difference is not None
    assert (second.difference.low, second.difference.high) == pytest.approx((welch.low, welch.high))
    assert not second.difference.is_noise
    assert "metric_best" not in found.noise  # the same in all
    (row,) = [row for row in found.rows() if row.name == "test f1"]
    assert row.cells == ["0.8200 ± 0.0292", "0.8800 ± 0.0300"], "a column each recipe, worst to best"
    (sentence,) = found.ranking.sentences
    assert f"{runs[5].name} is the best: its f1 on 50 test rows is 0.880 over 3 seeds" in sentence
    assert sentence.endswith("beyond the noise of the seeds.") and "0.0600 [" in sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_run_beside_a_group_is_held_against_the_spread_of_the_group(tmp_path: Path) -> None:
    runs = [scored(tmp_path, value, {"seed": index}) for index, value in enumerate(A)]
    near, far = (
        scored(tmp_path, value, {"optim.learning_rate": rate}) for value, rate in ((0.86, 1e-3), (0.99, 1e-2))
    )
    _, near_band, far_band = compare_runs([*runs, near, far]).noise["test_f1"]
    reach = t.ppf(0.975, 4) * statistics.stdev(A) * (1 + 1 / 5) ** 0.5
    assert near_band.difference is not None and far_band.difference is not None
    assert near_band.difference.high - near_band.difference.value == pytest.approx(reach)
    assert near_band.difference.is_noise and not far_band.difference.is_noise


def test_runs_that_differ_in_more_than_the_seed_are_no_group(tmp_path: Path) -> None:
    first = scored(tmp_path, 0.8, {"seed": 1})
    others = [
        scored(tmp_path, 0.8, {"seed": 1}),  # the same seed: tells nothing of noise
        scored(tmp_path, 0.8, {"seed": 2, "train.steps": 41}),
        scored(tmp_path, 0.8, {"seed": 3}, state="stopped"),
        scored(tmp_path, 0.8, {"seed": 4}, data="e" * 64),
    ]
    found = compare_runs([first, *others])
    assert found.groups == [] and found.noise == {}
    renamed = scored(tmp_path, 0.8, {"seed": 5, "name": "again"})
    assert [group.seeds for group in compare_runs([first, renamed]).groups] == [[1, 5]]


def test_a_run_that_was_changed_while_it_ran_is_no_seed_of_the_others(tmp_path: Path) -> None:
    changed = new_run(tmp_path, {"seed": 2})
    changes: dict[str, Any] = {"optim.learning_rate": 0.3}
    changed.append(
        attempt(), DataUsed("f" * 64, {}), Control(2, "change", "", changes=changes), *window(1, 5)
    )
    changed.append(Control(5, "finish", "the last step is done"))
    changed.close("finished")
    found = compare_runs([scored(tmp_path, 0.8, {"seed": 1}), changed.run])
    assert found.groups == [] and found.to_dict()["changes"] == [
        [], [{"after_step": 2, "key": "optim.learning_rate", "value": 0.3}],
    ]  # fmt: skip


def test_nothing_is_said_of_two_single_values_and_equal_ones_have_no_spread() -> None:
    assert difference_of_means([1.0], [2.0]) is None and difference_of_means([], [1.0, 2.0]) is None
    same = difference_of_means([2.0, 2.0], [2.0])
    assert same is not None and (same.value, same.low, same.high, same.is_noise) == (0, 0, 0, True)
    half = difference_of_means([2.0, 3.0, 4.0], [2.0, 2.0])
    assert half is not None and half.high - 1 == pytest.approx(t.ppf(0.975, 2) / 3**0.5)
