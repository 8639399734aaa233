import json
from pathlib import Path

import pytest

from etude.report.compare import compare_runs
from tests.report.runs import attempt, finished_run, loss_at, new_run, window


def test_recipe_and_result_differences_stand_side_by_side(tmp_path: Path) -> None:
    a, b = finished_run(tmp_path), finished_run(tmp_path, {"optim.learning_rate": 1e-3})
    found = compare_runs([a, b])
    assert found.recipe == {"optim.learning_rate": [6e-4, 1e-3]}
    assert found.same_data is True and found.environment == {}
    best = next(result for result in found.results if result.what == "best validation loss")
    assert (best.values, best.change) == ([2.5, 2.5], [0.0])
    rows = found.rows()
    assert {len(row) for row in rows} == {4} and rows[0] == ["", a.name, b.name, "change"]
    assert ["best validation loss", "2.5000", "2.5000", "same"] in rows
    assert ["optim.learning_rate", "0.0006", "0.001", ""] in rows
    assert ["validation loss, best", "2.5000", "2.5000 (same)"] in found.progression.rows()
    json.dumps(found.to_dict(), allow_nan=False)


def test_losses_are_compared_at_the_same_number_of_targets(tmp_path: Path) -> None:
    a, b = finished_run(tmp_path, targets=1000), new_run(tmp_path)
    b.append(attempt(precision="bf16"), *window(1, 5, targets=1000))
    b.close("stopped")
    found = compare_runs([a, b.run])
    seen = sum(1000 + n for n in range(1, 6))
    assert found.targets == seen and found.environment == {"precision": ["fp32", "bf16"]}
    expected = sum(loss_at(n) * (1000 + n) for n in range(1, 6)) / seen
    aligned = next(result for result in found.results if "over the first" in result.what)
    assert aligned.values == pytest.approx([expected, expected])
    steps = next(result for result in found.results if result.what == "steps")
    assert (steps.values, steps.change, steps.change_ratio) == ([40, 5], [-35], [-0.875])
    assert found.same_data is None


def test_runs_of_equal_length_have_one_row_for_the_end_of_training(tmp_path: Path) -> None:
    equal = [finished_run(tmp_path), finished_run(tmp_path)]
    rows = [row[0] for row in compare_runs(equal).rows() if row[0].startswith("training loss over")]
    targets = sum(100 + n for n in range(36, 41))
    assert rows == [
        f"training loss over the first {targets} targets", f"training loss over the last {targets} targets",
    ]  # fmt: skip
    shorter = new_run(tmp_path)
    shorter.append(attempt(), *window(1, 5), *window(6, 10), *window(11, 15))
    unequal = compare_runs([equal[0], shorter.run])
    assert len([row for row in unequal.rows() if row[0].startswith("training loss over")]) == 3
    shorter.close("stopped")


def test_many_runs_are_measured_against_the_first_even_without_steps(tmp_path: Path) -> None:
    empty = new_run(tmp_path)
    runs = [finished_run(tmp_path), empty.run, finished_run(tmp_path)]
    found = compare_runs(runs)
    assert found.targets == 0 and len(found.rows()[0]) == 6
    gap = next(result for result in found.results if result.what.startswith("gap"))
    assert gap.values[1] is None and gap.change == [None, 0.0]
    empty.close("stopped")
