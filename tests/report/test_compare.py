"""Runs side by side: what differs, the order, and nothing compared that does not compare."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.store import Run
from etude.report.compare import Comparison, compare_runs
from tests import misleading as made
from tests.report.runs import attempt, evaluation, finished_run, loss_at, new_run, window

Get = Callable[..., Any]


def table(found: Comparison) -> dict[str, list[str]]:
    """Cells by the name of their row; of rows of one name the first."""
    rows: dict[str, list[str]] = {}
    for row in found.rows():
        rows.setdefault(row.name, list(row.cells))
    return rows


def values(found: Comparison, name: str) -> list[float | None]:
    return next(result.values for result in found.results if result.name == name)


def test_recipe_and_result_differences_stand_side_by_side(tmp_path: Path) -> None:
    a, b = finished_run(tmp_path), finished_run(tmp_path, {"optim.learning_rate": 1e-3})
    found = compare_runs([a, b])
    assert found.recipe == {"optim.learning_rate": [6e-4, 1e-3]}
    assert found.same_data is True and found.environment == {}
    rows = table(found)
    assert rows["optim.learning_rate"] == ["0.0006", "0.001"]
    assert rows["validation loss, best"] == ["2.5000", "2.5000"]
    assert rows["run"] == ["small", "small"] and len(set(rows["id"])) == 2
    assert "train.steps" not in rows, "what is the same is not shown"
    json.dumps(found.to_dict(), allow_nan=False)


def test_defaults_of_a_source_or_an_adapter_that_others_lack_are_no_differences(tmp_path: Path) -> None:
    held_out = {"data.validation": [{"path": "/data/valid.jsonl"}]}
    tuned = {"model": {"from": "base"}, "tokenizer": {}, "adapter": {}, "optim.kind": "muon"}
    runs = [finished_run(tmp_path), finished_run(tmp_path, held_out), finished_run(tmp_path, tuned)]
    assert compare_runs(runs[:2]).recipe == {"data.validation.0.path": [None, "/data/valid.jsonl"]}
    found = compare_runs(runs).recipe
    assert {key for key in found if not key.startswith("model.n_")} >= {
        "model.from", "optim.kind", "adapter.kind", "adapter.rank", "adapter.targets",
    }  # fmt: skip
    off = ("adapter.dora", "adapter.dropout", "model.kind", "optim.momentum", "data.validation.0.max_bytes")
    assert not set(off) & set(found)


def test_losses_are_compared_at_the_same_number_of_targets(tmp_path: Path) -> None:
    a, b = finished_run(tmp_path, targets=1000), new_run(tmp_path)
    b.append(attempt(precision="bf16"), *window(1, 5, targets=1000))
    b.close("stopped")
    found = compare_runs([a, b.run])
    seen = sum(1000 + n for n in range(1, 6))
    assert found.targets == seen // 2 and found.environment == {"precision": ["fp32", "bf16"]}

    def mean(numbers: range) -> float:
        return sum(loss_at(n) * (1000 + n) for n in numbers) / sum(1000 + n for n in numbers)

    # Half of the 5,015 targets of the shorter run begin in its first three steps and end in its last three.
    assert values(found, "training_loss_first") == pytest.approx([mean(range(1, 4))] * 2)
    assert values(found, "training_loss_equal") == pytest.approx([mean(range(3, 6))] * 2)
    assert values(found, "training_loss_last")[1] == pytest.approx(mean(range(3, 6)))
    assert values(found, "step") == [40, 5] and found.same_data is None
    assert "against baseline" not in {row.name.strip() for row in found.rows() if "loss" in row.name}


def test_runs_of_equal_length_have_two_training_losses_and_others_a_third(tmp_path: Path) -> None:
    equal = [finished_run(tmp_path), finished_run(tmp_path)]
    assert not any(result.name == "training_loss_equal" for result in compare_runs(equal).results)
    shorter = new_run(tmp_path)
    shorter.append(attempt(), *window(1, 5), *window(6, 10), *window(11, 15))
    shorter.close("stopped")
    found = compare_runs([equal[0], shorter.run])
    assert values(found, "training_loss_equal")[1] == values(found, "training_loss_last")[1]


def test_others_are_held_against_the_baseline_that_is_named_even_without_steps(tmp_path: Path) -> None:
    empty = new_run(tmp_path)
    empty.close("stopped")
    runs = [finished_run(tmp_path), empty.run, finished_run(tmp_path, {"optim.learning_rate": 1e-3})]
    found = compare_runs(runs, 2)
    assert found.to_dict()["baseline"] == runs[2].name and found.targets == 0
    gap = next(result for result in found.results if result.name == "gap")
    assert gap.values[1] is None and gap.against(2) == [0.0, None, 0.0]
    lines = found.lines(80)
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line), "a path is never cut"
    assert any(runs[2].name in line and "baseline" in line for line in lines)


def test_a_figure_has_one_change_and_it_is_against_the_baseline(tmp_path: Path) -> None:
    def run(loss: float) -> Run:
        writer = new_run(tmp_path, {"optim.learning_rate": loss / 1000})
        writer.append(attempt(), *window(1, 40), evaluation(40, loss))
        writer.close("finished")
        return writer.run

    runs = [run(2.0), run(3.0), run(1.0)]
    found = compare_runs(runs)
    data = found.to_dict()
    assert data["validation_compares"] is False, "no journal says which rows are held out"
    assert "%" not in " ".join(table(found)["validation loss, best"])
    assert data["results"]["metric_best"]["against_baseline"] is None


def test_runs_with_other_held_out_rows_are_not_compared(misleading: Get) -> None:
    runs = misleading(made.other_held_out_rows)
    found = compare_runs(runs)
    text = "\n".join(found.lines(100))
    assert "The runs hold out different rows (1 in rows5-" in text and "No run is named best" in text
    assert "etude evaluate" in text and "--on FILE" in text and len(found.ranking.commands) == 1
    assert found.ranking.winner == [] and found.to_dict()["ordered_by"] == "time"
    names = [row.name for row in found.rows()]
    changed = [names[at - 1] for at, name in enumerate(names) if name.strip() == "against baseline"]
    assert changed == ["time in steps"], "percentages stand where they compare only"
    assert [group.name for group in found.columns] == [run.name for run in runs]


def test_runs_equal_within_the_noise_have_no_winner(misleading: Get) -> None:
    a, b = misleading(made.equal_within_noise)
    found = compare_runs([a, b])
    assert set(found.ranking.winner) == {a.name, b.name} and found.ranking.is_sure is False
    (sentence,) = found.ranking.sentences
    assert "are not distinguishable" in sentence and "within the noise of the rows" in sentence
    f1 = values(found, "test_f1")
    assert f1[0] is not None and f1[1] is not None
    order = [found.names.index(group.name) for group in found.columns]
    assert order == sorted(range(2), key=lambda place: f1[place] or 0.0), "worst to best"


def test_a_table_of_five_runs_fits_a_terminal_and_the_chart_has_one_scale(misleading: Get) -> None:
    runs = [*misleading(made.other_held_out_rows), *misleading(made.equal_within_noise)]
    for width in (80, 100):
        lines = compare_runs(runs).lines(width)
        assert max(map(len, lines)) <= width
        assert sum(line.startswith("id ") for line in lines) == 1
        assert sum("│" in line for line in lines) == 9 and sum("step 20" in line for line in lines) >= 1
        assert sum(line.startswith("⠒ training loss") for line in lines) == 1
