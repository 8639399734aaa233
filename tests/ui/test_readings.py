import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.records.events import Finding
from etude.ui import readings as module
from etude.ui.readings import Readings, key_of, last_steps
from tests.conftest import Outcome
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


def test_the_figures_are_those_of_show(tmp_path: Path, etude: Callable[..., Outcome]) -> None:
    run = finished_run(tmp_path)
    told = json.loads(etude("show", run.path, "--json").out)
    summary = Readings().summary(run)
    assert summary is not None
    assert summary.to_dict() == told


def test_a_large_journal_is_read_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path)
    here = Readings().summary(run)
    monkeypatch.setattr(module, "_LARGE", 0)
    readings = Readings()
    assert readings.summary(run) is None
    elsewhere = readings.summary(run, 400)
    assert here is not None
    assert elsewhere is not None
    assert elsewhere.to_dict() == here.to_dict()


def test_the_problem_of_another_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path)
    monkeypatch.setattr(module, "_LARGE", 0)
    (run.path / "resolved.toml").write_text("name = 1")
    with pytest.raises(InputError, match=r"resolved\.toml"):
        Readings().summary(run, 400)


def test_what_is_told_is_read_from_the_last_byte_on(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5), evaluation(5, 2.5))
    readings = Readings()
    first = readings.told(writer.run)
    assert [each.step for each in first.evaluations] == [5]
    assert not first.steps
    writer.append(*window(6, 10), Finding(10, "w", "e", "a"))
    second = readings.told(writer.run)
    assert [each.step for each in second.events(Finding)] == [10]
    assert second.evaluations[0] is first.evaluations[0]
    writer.append(attempt(2, 5))
    assert not readings.told(writer.run).events(Finding)
    writer.close("stopped")
    (writer.run.path / "journal.jsonl").write_bytes(b"")
    assert not readings.told(writer.run).evaluations


def test_the_last_steps_are_those_of_the_end_of_the_journal(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    assert last_steps(run)[-1].step == 40
    (run.path / "journal.jsonl").unlink()
    assert last_steps(run) == []


def test_the_key_changes_with_a_file_and_with_the_state_alone(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    key = key_of(writer.run.path)
    writer.beat()
    assert key_of(writer.run.path) == key
    writer.append(attempt())
    assert key_of(writer.run.path) != key
    key = key_of(writer.run.path)
    writer.close("stopped")
    assert key_of(writer.run.path) != key


def test_the_payloads_import_no_heavy_package() -> None:
    code = (
        "import sys, pkgutil, importlib, etude.ui\n"
        "for each in pkgutil.iter_modules(etude.ui.__path__):\n"
        "    importlib.import_module(f'etude.ui.{each.name}')\n"
        "print(*({'torch', 'transformers', 'matplotlib', 'sklearn'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
