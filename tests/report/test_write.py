import itertools
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import CheckpointSaved, Finding, Generation, Note
from etude.records.store import Run, append_note
from etude.report.markdown import prose
from etude.report.summary import summarize
from etude.report.wording import in_seconds
from etude.report.write import write_report
from tests import misleading as runs
from tests.report.runs import attempt, finished_run, loss_at, new_run, window

HEADINGS = [
    "Verdict", "Before and after", "Settings", "Phases", "Timeline", "Charts", "Lessons", "Next steps",
    "Appendix: time and resources", "Appendix: machine and software", "Appendix: model", "Appendix: data",
    "Appendix: defaults and values filled in",
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


def headings(text: str) -> list[str]:
    return re.findall("^## (.*)$", text, re.MULTILINE)


def test_a_finished_run_has_every_section_and_its_figures(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"records.title": 'A "small": one', "records.tags": ["a: b", "#c"]})
    text = report(run)
    assert headings(text) == HEADINGS
    assert front_matter(text) == {
        "title": 'A "small": one',
        "date": in_seconds(run.info["created"]),
        "type": "training",
        "tags": ["a: b", "#c"],
        "weight": 10,
    }
    first, last = (
        sum(loss_at(n) * (100 + n) for n in steps) / sum(100 + n for n in steps)
        for steps in (range(1, 6), range(36, 41))
    )
    assert f"| Training loss, mean of the first and of the last 5 steps | {first:.2f}, {last:.2f} |" in text
    assert "| validation | first and best, step 20 | last, step 40 | change to last |" in text
    assert "| **loss** (chosen) | 2.500 | 2.600 | +0.100 |" in text
    assert f"| perplexity | {math.exp(2.5):.2f} | {math.exp(2.6):.2f} | +1.28 |" in text
    assert "| 1 to 4 |" in text and "| 5 to 32 |" in text and "| 33 to 40 |" in text
    assert "gradient accumulation over 2 micro-batches" in text
    assert "`A \\| B`, 2 cores" in text
    assert (
        "![Learning rate](learning_rate.svg)" in text and (run.path / "report" / "learning_rate.svg").exists()
    )


@pytest.mark.usefixtures("drawn")
def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    folder = write_report(run, html=True).parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"report.md", "report.html", "loss.svg"} <= first.keys()
    write_report(run, html=True)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_without_a_step_or_even_an_attempt_has_a_report(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    text = report(writer.run)
    assert headings(text) == [
        "Verdict", "Settings", "Lessons", "Next steps", "Appendix: time and resources", "Appendix: defaults and values filled in",
    ]  # fmt: skip
    assert "Running at step 0." in text
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
    assert "Not finished: killed at step 7 of 40; etude resume" in text
    assert re.search(r"\| 5 \| the run \| attempt 2 from step-000005; cores was 2, is 4 \|", text)
    assert "Rework: 5 steps done again, 2.5 s." in text
    assert "| `step-000005` | 2.0 kB | 0.2 s |" in text


def test_skipped_steps_and_findings_are_problems(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    found = [Finding(step, "non-finite step", "loss nan", "lower it") for step in (2, 3)]
    writer.append(attempt(), *window(1, 5, bad=(2, 3)), *found)
    writer.close("failed")
    text = report(writer.run)
    assert "2 steps skipped because the loss or gradient was not finite: 2, 3." in text
    assert "| 2, 3 | non-finite step | loss nan | lower it |" in text


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
    assert headings(outside) == [
        *HEADINGS[:6], "Answers", "Problems", *HEADINGS[6:]
    ]  # fmt: skip
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


def test_sections_without_content_are_left_out_but_for_the_ones_that_people_write(tmp_path: Path) -> None:
    text = report(finished_run(tmp_path))
    for heading, following in itertools.pairwise(re.split("^## ", text, flags=re.MULTILINE)):
        assert heading.strip().count("\n") and following.strip().count("\n")
    assert "(none)" not in text and text.count("(nothing noted") == 2
    assert f"etude note {tmp_path / 'small-'}" in text and "--section lessons" in text


def test_no_value_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    changes = {"records.tags": ["a"], "evaluate.prompts": ["def ", "class "], "model.qk_norm": True}
    run = finished_run(tmp_path, changes)
    (run.checkpoints / "step-000040").mkdir(parents=True)
    (run.checkpoints / "step-000040" / "manifest.json").write_text("{}")
    config = {"architectures": ["Qwen3ForCausalLM"], "tied": True, "id2label": {"0": "x"}}
    (run.checkpoints / "step-000040" / "config.json").write_text(json.dumps(config))
    text = report(run).split("---\n", 2)[2]
    assert not re.search(r"\bTrue\b|\bFalse\b|\bNone\b|\['|\{'|\bnan\b", text)
    assert "architectures `Qwen3ForCausalLM`, tied `true`, id2label `0 x`" in text


def test_bookkeeping_of_data_stands_in_the_appendix_only(misleading: Callable[..., Any]) -> None:
    text = report(misleading(runs.all_rows_cut))
    body, appendix = text.split("## Appendix: data")
    for word in ("| folder |", "| read from cache |", "| seconds to prepare |"):
        assert word not in body and word in appendix
    assert "All 32 training rows were cut" in body


@pytest.mark.parametrize("name", [build.__name__ for build in runs.BUILDERS])
def test_a_report_begins_with_the_verdict_and_rounds_by_what_is_sure(
    name: str, misleading: Callable[..., Any]
) -> None:
    found = misleading(getattr(runs, name))
    for run in found if isinstance(found, list) else [found]:
        text = report(run)
        summary = summarize(run)
        first, second = headings(text)[:2]
        assert (first, second) == ("Verdict", "Before and after")
        assert prose(" ".join([summary["end"], *summary["verdict"]])) in text
        for problem in summary["problems"]:
            assert f"- {prose(problem)}" in text
        assert not re.search(r"(\d\.\d+) \[\1, \1\]", text), "an interval of no width is none"
        results = text.partition("## Results")[2].partition("\n## ")[0]
        assert not re.search(r"\bnan\b", results)
        assert "[0.0000" not in text and text.count("\n") < 400
