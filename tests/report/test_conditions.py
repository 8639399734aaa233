"""Conditions in a report: nothing of the recipe is lost, and techniques are those that are switched on."""

from pathlib import Path
from typing import Any

import pytest

from etude.recipe.load import flatten
from etude.report.conditions import describe_conditions, summary_tables
from etude.report.history import read_history
from tests.report.runs import attempt, finished_run, new_run


def conditions(runs: Path, changes: dict[str, Any]) -> dict[str, Any]:
    return describe_conditions(read_history(finished_run(runs, changes)))


def test_every_key_of_the_recipe_stands_in_one_of_the_tables_or_the_data(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"optim.learning_rate": 3e-5, "train.deterministic": True})
    sections = describe_conditions(read_history(run))
    tables = sections["architecture"] + sections["hyper_parameters"]
    for key, value in flatten(run.recipe.to_dict()).items():
        is_apart = key.startswith(("records.", "data.train.", "data.validation.", "evaluate.prompts", "name"))
        assert (f"| `{key}` |" in tables) == (not is_apart and value != []), key
    assert "| `optim.learning_rate` | `3e-05` |" in tables
    assert "| `train.deterministic` | `true` |" in tables


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.sliding_window": 8}, "sliding window of 8 tokens"),
        ({"evaluate.patience": 1}, "early stopping after 1 evaluation without improvement"),
        ({"evaluate.patience": 3}, "early stopping after 3 evaluations without improvement"),
        ({"model.n_head": 4, "model.n_kv_head": 1}, "4 query heads share 1 key and value head"),
        ({"train.max_grad_norm": 0.5}, "gradients clipped to norm 0.5"),
        ({"schedule.warmup_steps": 1}, "learning-rate schedule wsd, after a warm-up of 1 step"),
        ({"train.micro_batch_size": 2}, "gradient accumulation over 4 micro-batches"),
    ],
)
def test_a_technique_is_named_where_a_recipe_asks_for_it(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert says in conditions(tmp_path, changes)["techniques"]
    assert says not in conditions(tmp_path, {"schedule.warmup_steps": 3})["techniques"]


def test_counts_of_data_are_a_table_with_a_row_for_each_split_and_a_table_for_each_list() -> None:
    page = {
        "fingerprint_of": "x|y", "train": {"samples": 1200, "tokens": 5}, "test": {"samples": 7},
        "leaks": [{"of": "test", "share": 0.25, "examples": ["a = `b`"]}], "none": [],
    }  # fmt: skip
    single, splits, leaks = summary_tables(page)
    assert "| fingerprint of | `x\\|y` |" in single
    assert splits.splitlines() == [
        "| split | samples | tokens |", "| --- | --- | --- |", "| `train` | 1,200 | 5 |", "| `test` | 7 | – |",
    ]  # fmt: skip
    assert leaks.startswith("leaks:\n\n| of | share |") and leaks.endswith(
        "| `test` | 25.0 % |\n\n- `` a = `b` ``"
    )


def test_a_run_without_an_attempt_has_its_settings_and_no_machine(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    sections = describe_conditions(read_history(writer.run))
    assert (
        sections["infrastructure"] is None
        and sections["data"] == []
        and "`optim.kind`" in sections["hyper_parameters"]
    )
    writer.append(attempt())
    assert "2 cores" in describe_conditions(read_history(writer.run))["infrastructure"]
    writer.close("stopped")
