"""Text that a stranger wrote into a run folder stays text in a report, a card, a chart and on a terminal."""

import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from markdown_it import MarkdownIt

from etude.errors import InputError
from etude.records.events import (
    CheckpointSaved,
    Control,
    DataUsed,
    Evaluation,
    Finding,
    Generation,
    Note,
    Rating,
    to_json,
)
from etude.report.card import model_card
from etude.report.write import write_report
from tests.conftest import Outcome
from tests.report.runs import SCORES, attempt, finished_run, line, window

MARK = "\x1b]0;P\x07\x1b[31m| a ](javascript:x) <b>`~~~```\n# h\u202e"
ENVIRONMENT = {
    "machine": {"platform": "L", "cpu": "C", "cores": 2, "gpus": [{"name": "G", "memory_bytes": 1}]},
    "versions": {"sacrebleu": "2"}, "git": {"commit": "abc", "dirty": True}, "command": ["etude", "x"],
    "own_code": {"loss": "b"}, "base": {"from": "a", "path": "b", "sha256": "c"}, "host": "h",
}  # fmt: skip
RECORDS = [
    attempt(), attempt(2, 20, checkpoint="step-000020", changed=["x was 1"], environment=ENVIRONMENT),
    *window(41, 41), Evaluation(40, 2.0, 7.0, 1.0, 10, 1.0, True, {"f1": 0.5, "f1/kind": 0.5}), SCORES,
    Generation(40, "p", "t", {"max_tokens": 3}, "r", False, "kind"), Finding(40, "w", "e", "a"),
    Control(40, "stop", "r"), CheckpointSaved(40, "step-000040", 1, 0.1, 0.1),
    DataUsed("f", {"train": {"samples": 3, "examples": ["x"]}, "sources": [{"name": "a"}], "license": "x"}),
    Note("next", "x", "y"), Note("problem", "x", "y"), Rating(40, "p", "t", "r", 1.0),
]  # fmt: skip


def marked(value: Any) -> Iterator[Any]:
    """Copies of a value, in each of which one text, or one name of an object, is the mark."""
    if isinstance(value, str):
        yield MARK
    elif isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for changed in marked(value[key]):
                whole = copy.copy(value)
                whole[key] = changed
                yield whole
            if isinstance(value, dict):
                yield {MARK if name == key else name: item for name, item in value.items()}


def assert_harmless(text: str) -> None:
    """As a reader of CommonMark with tables sees it."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    body = text.split("\n---\n", 1)[1]
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<b>" not in html and 'href="javascript' not in html and "<h1>h" not in html, html
    for block in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        if re.match(r"\|.*\n\| ---", block):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1, block


def assert_shown_harmless(run: Path, etude: Callable[..., Outcome]) -> None:
    for words in (("show", run), ("runs", "--runs", run.parent), ("compare", run, run)):
        said = etude(*words)
        assert said.code in (0, 2)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", said.out + said.err), words


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_text_of_a_record_stays_text(record: Any, tmp_path: Path, etude: Callable[..., Outcome]) -> None:
    run = finished_run(tmp_path)
    values = to_json(record, 1e9)
    lines = [line({**each, "type": values["type"]}) for each in marked(values)]
    with (run.path / "journal.jsonl").open("ab") as journal:
        for each in lines:
            journal.write(each)
            journal.flush()
            assert_harmless(model_card(run, "step-000040", "hf"))
    report = write_report(run)
    assert_harmless(report.read_text())
    for chart in report.parent.glob("*.svg"):
        assert "\x1b" not in chart.read_text() and "javascript" not in chart.read_text()
    assert_shown_harmless(run.path, etude)


@pytest.mark.parametrize("file", ["run.json", "resolved.toml"])
def test_text_of_a_run_folder_stays_text_or_is_refused(
    file: str, tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    from etude.records.store import open_run

    path = finished_run(tmp_path).path
    text = (path / file).read_text()
    is_json = file.endswith(".json")
    for each in marked(json.loads(text) if is_json else tomllib.loads(text)):
        (path / file).write_text(json.dumps(each) if is_json else tomlkit.dumps(each))
        try:
            run = open_run(str(path), tmp_path)
            assert_harmless(model_card(run, "step-000040", "hf"))
            assert_harmless(write_report(run).read_text())
        except InputError as error:
            assert "\n" not in str(error)
    assert_shown_harmless(path, etude)
