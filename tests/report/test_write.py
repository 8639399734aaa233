import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import CheckpointSaved, Finding, Generation, Note
from etude.records.store import Run, append_note
from etude.report.wording import in_seconds
from etude.report.write import write_report
from tests.report.runs import attempt, finished_run, loss_at, new_run, window

HEADINGS = [
    "Verdict", "Summary", "Infrastructure", "Architecture", "Hyper-parameters", "Data", "Phases", "Timeline",
    "Techniques in use", "Results", "Samples", "Checkpoints", "Problems", "Interventions", "Lessons",
    "Next steps",
]  # fmt: skip
HOSTILE = (
    "```\n</pre><script>alert(1)</script>\n````\n\x1b[31mred\x1b]0;t\x07 \u202e | # heading\n---\n~~~~~\ud83d"
)


def report(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def front_matter(text: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return dict(yaml.safe_load(text.split("---\n")[1]))


def without_fences(text: str) -> str:
    """What a Markdown reader does not take literally, by CommonMark's rule for fences."""
    kept, fence = [], ""
    for line in text.split("\n"):
        if fence:
            fence = "" if re.fullmatch(rf" {{0,3}}`{{{len(fence)},}}\s*", line) else fence
        elif opening := re.match("(`{3,})[^`]*$", line):
            fence = opening[1]
        else:
            kept.append(re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", line))
    assert not fence
    return "\n".join(kept)


def test_a_finished_run_has_every_section_and_its_figures(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"records.title": 'A "small": one', "records.tags": ["a: b", "#c"]})
    text = report(run)
    assert re.findall("^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert front_matter(text) == {
        "title": 'A "small": one',
        "date": in_seconds(run.info["created"]),
        "type": "training",
        "tags": ["a: b", "#c"],
        "weight": 10,
    }
    steps = range(36, 41)
    last = sum(loss_at(n) * (100 + n) for n in steps) / sum(100 + n for n in steps)
    assert f"| Training loss, mean of the last log window | {last:.4f} |" in text
    assert "| validation | first and best, step 20 | last, step 40 | change to last |" in text
    assert "| loss | 2.5000 | 2.6000 | +0.1000 |" in text
    assert (
        f"| perplexity | {math.exp(2.5):.4f} | {math.exp(2.6):.4f} | +{math.exp(2.6) - math.exp(2.5):.4f} |"
        in text
    )
    assert "| Status | finished: the last step is done |" in text
    assert "| 1 to 4 |" in text and "| 5 to 32 |" in text and "| 33 to 40 |" in text
    assert "gradient accumulation over 2 micro-batches" in text
    assert "`A \\| B`, 2 cores" in text
    assert (
        "![Learning rate](learning_rate.svg)" in text and (run.path / "report" / "learning_rate.svg").exists()
    )


def test_phase_losses_are_means_of_their_ends(tmp_path: Path) -> None:
    row = next(line for line in report(finished_run(tmp_path)).splitlines() if line.startswith("| stable"))

    def mean(steps: range) -> str:
        return f"{sum(loss_at(n) * (100 + n) for n in steps) / sum(100 + n for n in steps):.4f}"

    assert row == f"| stable | 5 to 32 | {mean(range(5, 10))} | {mean(range(28, 33))} | 14.0 s |"


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    first = {path.name: path.read_bytes() for path in write_report(run).parent.iterdir()}
    assert first == {path.name: path.read_bytes() for path in write_report(run).parent.iterdir()}


def test_a_run_without_a_step_or_even_an_attempt_has_a_report(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    text = report(writer.run)
    assert re.findall("^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert "running: it is going on" in text and "(no step yet)" in text
    writer.append(attempt())
    assert "0 of 40" in report(writer.run)
    writer.close("stopped")


def test_a_killed_run_that_was_continued_tells_it(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5), CheckpointSaved(5, "step-000005", 2000, 0.1, 0.2), *window(6, 10))
    writer.append(attempt(2, 5, checkpoint="step-000005", changed=["cores was 2, is 4"]), *window(6, 7))
    os.close(writer._lock)
    (writer.run.checkpoints / "step-000005").mkdir()
    (writer.run.checkpoints / "step-000005" / "manifest.json").write_text("{}")
    text = report(writer.run)
    assert "killed: its process ended without a word" in text
    assert re.search(r"\| 5 \| attempt 2 \| from `step-000005`; cores was 2, is 4 \|", text)
    assert "Rework: 5 steps done again, 2.5 s." in text
    assert "| `step-000005` | 2.0 kB | 0.2 s |" in text


def test_skipped_steps_and_findings_are_problems(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5, bad=(2, 3)), Finding(2, "non-finite step", "loss nan", "lower it"))
    writer.close("failed")
    text = report(writer.run)
    assert "2 steps skipped because loss or gradient was not finite: 2, 3." in text
    assert "| 2 | non-finite step | loss nan | lower it |" in text


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"records.title": "<script>*x*\n# y", "records.author": "a\x7f\u2028b: c"})
    for section in ("lessons", "next", "problem"):
        append_note(run, Note(section, HOSTILE, "<b>me</b>"))
    append_note(run, Generation(40, HOSTILE, HOSTILE, {}))
    append_note(run, Finding(40, "<script>", HOSTILE, "`|`"))
    text = report(run)
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    outside = without_fences(text.split("---\n", 2)[2])
    assert not re.search(r"(?<!\\)<", outside)
    assert re.findall("^## (.*)$", outside, re.MULTILINE) == HEADINGS
    assert re.findall("^# (.*)$", outside, re.MULTILINE) == ["\\<script\\>\\*x\\* \\# y"]
    values = front_matter(text)
    assert (values["title"], values["author"]) == ("<script>*x*\n# y", "a\\x7f\nb: c")


def test_front_matter_is_one_json_value_a_line(tmp_path: Path) -> None:
    block = report(finished_run(tmp_path)).split("---\n")[1]
    values = {
        key: json.loads(value) for key, value in (line.split(": ", 1) for line in block.strip().splitlines())
    }
    assert (values["weight"], values["tags"]) == (10, [])


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    path = run.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": 7, "epoch": 0', b'"step": 7, "epoch": 1', 1))
    assert "Lines of the journal that fail their checksum and are left out: 11." in report(run)
