"""A run is held against its own records: an honest one has no deviation, a forged one is told by its place."""

import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.load import recipe_from
from etude.records.events import Note
from etude.records.store import Run, append_note
from etude.report.deviations import Deviation
from etude.report.verifying import verify_run
from etude.report.write import write_report
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.recipes import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    recipe = recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), {"checkpoint.keep": "all"}))
    return run_recipe(recipe, Options(runs=folder / "runs")).run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def found(run: Path) -> list[Deviation]:
    return verify_run(run).deviations


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def reseal(line: bytes, **values: Any) -> bytes:
    """A line of a journal with other values and a checksum that holds."""
    record = {**json.loads(line), **values}
    del record["crc"]
    body = json.dumps(record)[:-1].encode()
    return body + b', "crc": "%08x"}' % zlib.crc32(body)


def test_an_honest_run_follows_from_its_records(run: Path) -> None:
    made = verify_run(run)
    assert made.deviations == [] and made.open == []
    assert made.examined["figures of the report"] > 40 and made.examined["heads of the journal"] == 10
    append_note(Run(run), Note("lessons", "said later"))
    assert found(run) == []
    write_report(Run(run), html=True)
    assert found(run) == []


def test_a_run_that_moved_follows_from_its_records(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(Run(run))
    monkeypatch.chdir(run.parent)
    assert found(Path(run.name)) == []


def test_an_edited_loss_whose_checksum_was_made_anew_does_not_follow_from_the_next_head(run: Path) -> None:
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines()
    place = next(n for n, line in enumerate(lines) if b'"type": "step"' in line and b'"step": 6,' in line)
    lines[place] = reseal(lines[place], loss=0.5)
    path.write_bytes(b"\n".join([*lines, b""]))
    chain, *others = found(run)
    assert chain.kind == "chain"
    first, last = map(int, re.findall(r"lines (\d+) to (\d+)", chain.rule)[0])
    assert first <= place + 1 <= last < len(lines)
    assert {each.kind for each in others} - {"value"}, "the report tells the loss, too"


def test_a_journal_that_was_cut_off_is_told(run: Path) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert any(each.kind == "chain" and "cut off" in each.rule for each in found(run))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda text: re.sub(r"(\| Speed \| )\d", r"\g<1>9", text), "digit"),
        (lambda text: text.replace(" tokens/s", " samples/s", 1), "unit"),
        (lambda text: re.sub(r"(MFU[^|]*\| [\d.]+) %", r"\1 points", text, count=1), "points"),
        (lambda text: text.replace("validation loss", "training loss", 1), "split"),
        (lambda text: text.replace("the best step", "the last step", 1), "statistic"),
        (lambda text: re.sub(r"`(tiny)-[0-9a-f]{6}`", r"`\1-abcdef`", text, count=1), "run"),
        (lambda text: text.replace("## Settings", "It beats every other model.\n\n## Settings"), "orphan"),
        (lambda text: re.sub(r"\n- optimizer.*", "", text, count=1), "missing"),
    ],
)  # fmt: skip
def test_an_edited_sentence_is_told_with_what_follows(
    run: Path, change: Callable[[str], str], kind: str
) -> None:
    edit(run / "report/report.md", change)
    (deviation,) = found(run)
    assert (deviation.kind, deviation.file) == (kind, "report/report.md")
    assert deviation.line and deviation.stated != deviation.follows


def test_an_edited_figure_of_the_json_is_told(run: Path) -> None:
    path = run / "report/report.json"
    values = json.loads(path.read_text())
    place = next(n for n, each in enumerate(values["figures"]) if each["name"] == "last_loss")
    assert values["figures"][place]["records"] == [{"kind": "step", "first": 10, "last": 12, "n": 3}]
    values["figures"][place]["value"] = 1.0
    path.write_text(json.dumps(values))
    (deviation,) = found(run)
    assert deviation.kind == "value" and f"figures[{place}].value = 1.0" in deviation.stated


def test_other_files_of_a_run_are_held_against_its_journal(run: Path) -> None:
    edit(run / "best.json", lambda text: re.sub(r'("value": )[\d.]+', r"\g<1>0.1", text))
    edit(run / "environment.json", lambda text: re.sub(r'("data_fingerprint": ")\w{4}', r"\g<1>0000", text))
    weights = next((run / "checkpoints").glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (run / "report/report.json").unlink()
    kinds = [each.kind for each in found(run)]
    assert {"checkpoint", "data", "value"} <= set(kinds)


def test_dates_that_cannot_be_are_told(run: Path) -> None:
    edit(run / "run.json", lambda text: re.sub(r'("created": ")\d{4}', r"\g<1>2999", text))
    shutil.rmtree(run / "report")
    (deviation,) = found(run)
    assert deviation.kind == "date" and "after 2999-" in deviation.follows


def test_a_run_without_heads_says_so(run: Path) -> None:
    for path in [*(run / "checkpoints").glob("*/manifest.json"), run / "lease.json"]:
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "journal"}))
    path = run / "journal.jsonl"
    lines = [reseal(line, journal=None) if b"sha256" in line and b'"checkpoint",' in line else line
             for line in path.read_bytes().splitlines()]  # fmt: skip
    path.write_bytes(b"\n".join([*lines, b""]))
    (run / "report/report.json").unlink()
    assert any("no heads" in sentence for sentence in verify_run(run).open)
