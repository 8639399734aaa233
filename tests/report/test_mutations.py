"""True reports of every kind of training are not told; each edit of them is, nearly always by its kind."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Control
from etude.records.store import Run
from etude.report.deviations import compare_texts
from etude.report.history import read_history
from etude.report.verifying import known_figures, verify_run
from etude.report.write import make_report
from tests.every_kind import train_every_kind
from tests.report.mutated import EDITS, mutate

SAMPLE, NAMED = 160, 152  # 95 of 100


@pytest.fixture(scope="module")
def runs(make_once: Callable[..., Any]) -> dict[str, Run]:
    return {what: Run(Path(path)) for what, path in make_once("every_kind", train_every_kind).items()}


def test_true_reports_of_every_kind_of_training_follow_from_their_records(runs: dict[str, Run]) -> None:
    for run in runs.values():
        made = verify_run(run.path)
        assert made.deviations == [] and made.open == []
    short = [each.event for each in runs["out of memory"].ledger().entries]
    assert any(isinstance(each, Control) and "train.micro_batch_size" in each.changes for each in short)


def test_each_edit_of_a_true_report_is_told_and_its_kind_is_named(runs: dict[str, Run]) -> None:
    draw = random.Random(1)
    histories = [read_history(run) for run in runs.values()]
    reports = [(make_report(each), each) for each in histories]
    known = [known_figures(*each) for each in reports]
    named = made = 0
    while made < SAMPLE:
        kind, place = list(EDITS)[made % len(EDITS)], draw.randrange(len(reports))
        report, history = reports[place]
        if (text := mutate(kind, report, history, draw)) is not None:
            told = list(compare_texts("report.md", text, report.text, known[place]))
            assert told, (kind, text)
            named += [each.kind for each in told] == [kind]
            made += 1
    assert named >= NAMED
