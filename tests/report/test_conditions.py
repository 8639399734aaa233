"""Conditions in a report: nothing of the recipe is lost, and techniques are those that are switched on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.settings import shown_settings
from etude.report.conditions import (
    describe_data,
    describe_defaults,
    describe_machine,
    describe_settings,
    summary_tables,
)
from etude.report.history import read_history
from etude.report.summary import summarize_history
from tests import misleading as runs
from tests.report.runs import attempt, finished_run, new_run


def settings(folder: Path, changes: dict[str, Any]) -> str:
    history = read_history(finished_run(folder, changes))
    return "\n".join(describe_settings(history, summarize_history(history)))


def test_every_key_of_the_recipe_is_either_set_or_a_default(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"optim.learning_rate": 3e-5, "train.deterministic": True})
    history = read_history(run)
    given = "\n".join(describe_settings(history, summarize_history(history)))
    defaults = "\n".join(describe_defaults(history))
    for key, value in shown_settings(run.recipe).items():
        section, _, name = key.rpartition(".")
        is_default = any(
            line.startswith(f"- `{section}`:") and f" {name} `" in line.replace("\\_", "_")
            for line in defaults.splitlines()
        )
        is_given = f"| `{key}` |" in given or (f"| `{section}` |" in given and f"{name} `" in given)
        is_apart = key.startswith(("records.t", "records.w", "name", "seed")) or value == []
        assert is_apart or is_default != is_given, key
    assert "| `optim.learning_rate` | `3e-05` |" in given
    assert "| `train.deterministic` | `true` |" in given


def test_a_key_of_the_recipe_file_is_set_also_where_it_is_the_default(
    misleading: Callable[..., Any], tmp_path: Path
) -> None:
    run = finished_run(tmp_path)
    assert "`optim.kind`" not in "\n".join(describe_settings(*_both(run)))
    (run.path / "recipe.toml").write_text('[optim]\nkind = "adamw"\n')
    assert "| `optim.kind` | `adamw` |" in "\n".join(describe_settings(*_both(run)))
    (run.path / "recipe.toml").write_text("[optim\n")
    assert "`optim.kind`" not in "\n".join(describe_settings(*_both(run)))
    told = "\n".join(describe_settings(*_both(misleading(runs.all_rows_cut))))
    assert "| `train.seq_len` | `64` |" in told and "32 training samples, 8 validation samples" in told
    assert "LoRA" in told or "all other weights are frozen" not in told


def test_what_etude_filled_in_is_apart_from_what_was_set(misleading: Callable[..., Any]) -> None:
    history, summary = _both(misleading(runs.bad_end))
    given = "\n".join(describe_settings(history, summary))
    defaults = "\n".join(describe_defaults(history))
    assert "| `model.n_layer` |" in given and "| `train.steps` | `30` |" in given
    assert "head_dim" not in given.replace("\\_", "_") and "head_dim `" in defaults.replace("\\_", "_")


def _both(run: Any) -> tuple[Any, Any]:
    history = read_history(run)
    return history, summarize_history(history)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.sliding_window": 8}, "sliding window of 8 tokens"),
        (
            {"model.layer_window": [8, 0], "model.qk_norm": True},
            "sliding windows of 8, all tokens, repeated over the layers",
        ),
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
    assert f"- {says}\n" in settings(tmp_path, changes)
    assert f"- {says}\n" not in settings(tmp_path, {"schedule.warmup_steps": 3})


def test_counts_of_data_are_a_table_with_a_row_for_each_split_and_a_table_for_each_list() -> None:
    page = {
        "fingerprint_of": "x|y", "train": {"samples": 1200, "tokens": 5}, "test": {"samples": 7},
        "leaks": [{"of": "test", "share": 0.25, "examples": ["a = `b`"]}], "none": [],
    }  # fmt: skip
    single, splits, leaks = summary_tables(page)
    assert "| fingerprint of | `x\\|y` |" in single
    assert splits.splitlines() == [
        "| split | samples | targets |", "| --- | --- | --- |", "| `train` | 1,200 | 5 |", "| `test` | 7 | – |",
    ]  # fmt: skip
    assert leaks.startswith("leaks:\n\n| of | share |") and leaks.endswith(
        "| `test` | 25.0 % |\n\n- `` a = `b` ``"
    )


def test_a_value_has_one_name_on_the_terminal_and_in_the_report() -> None:
    (shown,) = summary_tables({"cached": True, "seconds": 0.5, "vocab_size": 300})
    for title in ("read from cache", "seconds to prepare", "vocab size"):
        assert f"| {title} |" in shown


def test_counts_that_say_nothing_are_left_out_and_lists_are_words() -> None:
    page = {
        "overlap": 0, "unknown_ratio": 0.0, "conversations": {"template": "chat", "without_bos": 0},
        "train": {"documents": 3, "dropped": 0, "dropped_rows": [], "cut_away_rows": ["a:1", "a:2"]},
        "test": {"documents": 1, "dropped": 0, "dropped_rows": [], "cut_away_rows": []},
    }  # fmt: skip
    assert list(summary_tables(page)) == [
        "|  |  |\n| --- | --- |\n| conversations | `template chat` |",
        "| split | documents | rows without answer |\n| --- | --- | --- |\n"
        "| `train` | 3 | `a:1, a:2` |\n| `test` | 1 | – |",
    ]


def test_a_list_in_which_nothing_was_found_says_so() -> None:
    none = {"documents": 0, "share": 0.0, "examples": []}
    page = {"leaks": [{"of": "test", "also_in": "train", **none}], "duplicates": [{"kind": "exact", **none}]}
    leaks, duplicates = summary_tables(page)
    assert leaks.endswith("| of | also in | documents |\n| --- | --- | --- |\n| `test` | `train` | 0 |")
    assert duplicates.endswith("| `exact` | 0 |")


def test_a_run_without_an_attempt_has_its_settings_and_no_machine(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    history = read_history(writer.run)
    assert not [*describe_machine(history), *describe_data(history)]
    assert "| `train.steps` | `40` |" in "\n".join(describe_settings(*_both(writer.run)))
    writer.append(attempt())
    assert "2 cores" in "".join(describe_machine(read_history(writer.run)))
    writer.close("stopped")
