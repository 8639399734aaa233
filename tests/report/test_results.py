import math
import re
from pathlib import Path

from etude.records.events import Evaluation, Generation, Scores
from etude.records.store import Run
from etude.report.results import describe_scores
from etude.report.summary import describe, summarize
from etude.report.write import write_report
from tests.report.runs import attempt, evaluation, new_run, window

BASE = {"from": "Qwen/Qwen2.5-Coder-1.5B-Instruct", "path": "/models/qwen", "sha256": "ab" * 32}


def judged(step: int, loss: float, best: bool, exact: float, debug: float = 0.5) -> Evaluation:
    metrics = {
        "stop_rate": 0.5, "format_kept": math.nan, "exact_match": exact, "bleu": 12.5,
        "exact_match/debug": debug, "exact_match/write": 1.0,
    }  # fmt: skip
    return Evaluation(step, loss, math.exp(loss), None, 500, 1.0, best, metrics)


def said(step: int, prompt: str, *, stopped: bool = True) -> Generation:
    return Generation(step, prompt, f"said at {step}", {"max_tokens": 24}, "x = 1", stopped, "debug")


def tuned_run(runs: Path) -> Run:
    """The figures of story 4: an adapter whose best moment was not its last."""
    writer = new_run(runs, {"evaluate.answers": 3, "evaluate.answer_tokens": 24})
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
    assert f"| Base model | `{BASE['from']}`, SHA-256 `{BASE['sha256']}` |" in text
    shown = dict(describe(summarize(run)))
    assert shown["parameters"] == "trainable 2,179,072 of 1,545,893,376 (0.1410 %)"
    assert shown["base model"] == f"{BASE['from']}, SHA-256 {'ab' * 8}"
    assert shown["exact match"] == "0.0000 → 0.2500 (best checkpoint 0.5000)"
    assert "exact match/debug" not in shown, "figures of one capability stand in the report"


def test_equal_prompts_keep_their_own_references(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *(Generation(5, "Add.", f"said {n}", {}, f"right {n}", True) for n in range(2)))
    writer.close("finished")
    samples = write_report(writer.run).read_text().split("## Samples")[1].split("##")[0]
    places = [samples.index(words) for words in ("right 0", "said 0", "right 1", "said 1")]
    assert places == sorted(places)


def test_before_and_after_stand_side_by_side_for_each_figure_and_capability(tmp_path: Path) -> None:
    text = write_report(tuned_run(tmp_path)).read_text()
    assert "| validation | before training, step 0 | best, step 5 | last, step 10 | change to best |" in text
    assert "| loss | 2.0000 | 1.5000 | 1.7500 | -0.5000 |" in text
    assert "| exact match | 0.0000 | 0.5000 | 0.2500 | +0.5000 |" in text
    assert "| debug | exact match | 0.5000 | 0.7500 | 0.5000 | +0.2500 |" in text
    assert "| write | exact match | 1.0000 | 1.0000 | 1.0000 | same |" in text
    assert "format kept |" not in text and "bits per byte |" not in text
    assert "by sacrebleu 2.6.0 (`nrefs:1" in text


def test_texts_are_told_over_time_with_how_they_ended(tmp_path: Path) -> None:
    text = write_report(tuned_run(tmp_path)).read_text()
    samples = text.split("## Samples")[1].split("## Checkpoints")[0]
    assert samples.count("Prompt:") == 1 and samples.count("```text\nAdd.\n```") == 1
    assert "Reference:\n\n```text\nx = 1\n```" in samples
    places = [
        samples.index(line)
        for line in (
            "Before training, cut off after 24 tokens:", "said at 0",
            "After step 5 (best), ended by itself:", "said at 5",
            "After step 10, ended by itself:", "said at 10",
        )
    ]  # fmt: skip
    assert places == sorted(places)


def test_many_prompts_are_left_to_the_journal(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(
        attempt(), *(Generation(step, f"p{n}", "t", {}) for step in range(1, 30) for n in range(11))
    )
    writer.close("finished")
    text = write_report(writer.run).read_text()
    assert "The journal has 3 more prompts." in text and text.count("After step") == 8 * 4


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
    report = write_report(writer.run).read_text()
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.count("| f1 |")]
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
