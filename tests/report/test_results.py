import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.records.events import Evaluation, Generation, Scores
from etude.records.store import Run
from etude.report.history import read_history
from etude.report.results import before_after, describe_scores
from etude.report.summary import describe, summarize, summarize_history
from etude.report.wording import short
from etude.report.write import write_report
from tests import misleading as runs
from tests.report.runs import attempt, evaluation, new_run, plain, window

BASE = {"from": "Qwen/Qwen2.5-Coder-1.5B-Instruct", "path": "/models/qwen", "sha256": "ab" * 32}


def judged(step: int, loss: float, best: bool, exact: float, debug: float = 0.5) -> Evaluation:
    metrics = {
        "stop_rate": 0.5, "format_kept": math.nan, "exact_match": exact, "bleu": 12.5,
        "exact_match/debug": debug, "exact_match/write": 1.0,
    }  # fmt: skip
    return Evaluation(step, loss, math.exp(loss), None, 500, 1.0, best, metrics)


def said(step: int, prompt: str, *, stopped: bool = True) -> Generation:
    return Generation(step, prompt, f"said at {step}", {"max_tokens": 24}, "x = 1", stopped, "debug")


def tuned_run(folder: Path) -> Run:
    """The figures of story 4: an adapter whose best moment was not its last."""
    writer = new_run(folder, {"evaluate.answers": 3, "evaluate.answer_tokens": 24})
    started = attempt(
        parameters={"adapter": 2_179_072, "total": 1_545_893_376}, trainable=2_179_072,
        environment={"base": BASE, "versions": {"sacrebleu": "2.6.0"}},
    )  # fmt: skip
    writer.append(started, judged(0, 2.0, False, 0.0), said(0, "Add.", stopped=False))
    writer.append(*window(1, 5), judged(5, 1.5, True, 0.5, 0.75), said(5, "Add."))
    writer.append(*window(6, 10), judged(10, 1.75, False, 0.25), said(10, "Add."))
    writer.close("finished")
    return writer.run


def test_the_adapter_and_its_base_are_named(tmp_path: Path) -> None:
    run = tuned_run(tmp_path)
    text = write_report(run).read_text()
    assert "| Parameters | trainable 2,179,072 of 1,545,893,376 (0.1410 %) |" in text
    assert f"| Model | causal language model, from `{BASE['from']}` |" in text
    assert f"Base model `{BASE['from']}`, SHA-256 `{BASE['sha256']}`" in text
    shown = dict(describe(summarize(run)))
    assert shown["parameters"] == "trainable 2,179,072 of 1,545,893,376 (0.1410 %)"
    assert shown["base model"] == f"{BASE['from']}, SHA-256 {'ab' * 8}"
    assert shown["exact match"] == "0.0000 → 0.2500 (best checkpoint 0.5000)"
    assert "exact match/debug" not in shown, "figures of one capability stand in the report"


def test_before_and_after_stand_side_by_side_for_each_figure_and_capability(tmp_path: Path) -> None:
    text = write_report(tuned_run(tmp_path)).read_text()
    assert "| validation | before training, step 0 | best, step 5 | last, step 10 | change to best |" in text
    assert "| **loss** (chosen) | 2.000 | 1.500 | 1.750 | -0.500 |" in text
    assert "| exact match | 0 | 0.500 | 0.250 | +0.500 |" in text
    assert "By capability, before training → best:" in text
    assert "| debug | 0.500 → 0.750 |" in text and "| write | 1.00 |" in text
    assert "The same at each: stop rate 0.500, bleu 12.5." in text
    assert "format kept" not in text and "bits per byte" not in text
    assert "by sacrebleu 2.6.0 (nrefs:1" in text


def test_the_chosen_metric_comes_first_and_each_figure_once(misleading: Callable[..., Any]) -> None:
    run = misleading(runs.worse_than_before)
    history = read_history(run)
    table, by_label = plain(before_after(history, summarize_history(history)))[:2]
    first, second = table.splitlines()[2:4]
    values = [each.metrics["f1"] for each in history.evaluations]
    assert first.startswith(f"| **f1** (chosen) | {short(values[0])} | ")
    assert second.startswith("| loss |") and "| f1 macro |" not in table and "perplexity" not in table
    assert by_label.splitlines()[2].startswith("| label | ") and "capability" not in by_label
    assert [line.split("|")[1].strip() for line in by_label.splitlines()[4:]] == ["none", "out", "sum"]


def test_gains_that_rows_do_not_show_are_said_to_be_noise() -> None:
    scores = Scores(
        step=1, rows=100, split="test", metric="f1",
        systems={name: {"f1": [0.5, 0.41, 0.59]} for name in ("after", "before", "majority class")},
        gains={"before": [0.01, -0.08, 0.1], "majority class": [0.2, 0.11, 0.29]},
    )  # fmt: skip
    (table,) = describe_scores(scores)
    assert "| before training | 0.500 [0.410, 0.590] | +0.010 [-0.080, 0.100], within the noise |" in table
    assert "| majority class | 0.500 [0.410, 0.590] | +0.200 [0.110, 0.290] |" in table
    assert "| after training | 0.500 [0.410, 0.590] | – |" in table


def test_what_came_before_training_is_never_the_best(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), evaluation(0, 1.0, best=False), *window(1, 5), evaluation(5, 1.5))
    writer.close("finished")
    summary = summarize(writer.run)
    assert (
        summary["first_validation_loss"],
        summary["best_validation_loss"],
        summary["best_validation_step"],
    ) == (
        1.0,
        1.5,
        5,
    )


def test_labels_that_are_numbers_stand_in_the_order_of_their_values_in_every_table(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    metrics = {f"f1/{name}": 0.5 for name in ("10", "9", "-1", "2.5", "b")}
    writer.append(attempt(), Evaluation(5, 1.0, 2.0, None, 500, 1.0, True, metrics))
    writer.close("finished")
    part = write_report(writer.run).read_text().split("| label | f1 |")[-1].split("By ")[-1]
    rows = [line.split("|")[1].strip() for line in part.splitlines() if line.endswith("| 0.500 |")]
    assert rows == ["-1", "2.5", "9", "10", "b"]


def test_odd_names_of_labels_do_not_break_the_tables_of_scores() -> None:
    names = ["a|b", "**bold**", "<b>", "[x](y)", "`c`", "f1/d", "\u202ex", " "]
    scores = Scores(
        step=1, rows=8, split="test", metric="f1", systems={"after": {"f1": [0.5, 0.4, 0.6]}}, gains={},
        capabilities={name: {"rows": 1.0, "after": 0.5} for name in names}, labels=names,
        confusion=[[1] * len(names)] * len(names), thresholds=[0.5] * len(names), notes=["no row has a|b"],
    )  # fmt: skip
    parts = describe_scores(scores)
    tables = [part.rpartition("\n\n")[2] for part in parts if "| --- |" in part]
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    text = "\n".join(parts)
    assert "<b>" not in text and "**bold**" not in text and "\u202e" not in text
