"""The report of a sweep follows from the journals of its trials; what was edited is told."""

import re
import shutil
from pathlib import Path

import pytest

from etude.sweep.verifying import verify_sweep
from tests.bases import write_corpus
from tests.sweeps import execute, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified-sweep")
    path = make(folder, write_corpus(folder / "corpus.jsonl"), {"optim.learning_rate": [1e-3, 3e-3]})
    execute(path, folder / "sweep")
    return folder / "sweep"


@pytest.fixture
def sweep(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "sweep"))


@pytest.mark.usefixtures("drawn")
def test_an_honest_sweep_follows_from_its_journals(sweep: Path) -> None:
    found = verify_sweep(sweep)
    assert found.deviations == [] and found.open == []
    assert found.examined["trials"] == 2 and found.examined["heads of journals"] == 2


def test_an_edited_report_of_a_sweep_is_told(sweep: Path) -> None:
    report = sweep / "report/report.md"
    report.write_text(report.read_text() + "\nEvery trial converged.\n")
    values = sweep / "report/report.json"
    values.write_text(re.sub(r'("value": )\d', r"\g<1>9", values.read_text(), count=1))
    first, second = verify_sweep(sweep).deviations
    assert first.kind == "value" and (second.kind, second.stated) == ("orphan", "Every trial converged.")


def test_an_edited_journal_of_a_trial_is_told_by_the_run_and_by_the_report(sweep: Path) -> None:
    journal = min((sweep / "runs").glob("*-??????")) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:8], *lines[9:]]))
    files = {each.file for each in verify_sweep(sweep).deviations if each.kind == "chain"}
    assert files >= {f"runs/{journal.parent.name}/journal.jsonl", "report/report.json"}


def test_a_sweep_without_a_report_says_so(sweep: Path) -> None:
    shutil.rmtree(sweep / "report")
    found = verify_sweep(sweep)
    assert found.deviations == [] and any("no report of the sweep" in each for each in found.open)
