import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.records.events import Finding
from etude.ui import readings as readings_module
from etude.ui.library import Library
from etude.ui.listing import Listing
from etude.ui.readings import Readings
from tests.conftest import Outcome
from tests.processes import wait_for
from tests.report.runs import attempt, evaluation, finished_run, new_run, window

ALL = 60.0  # seconds of patience: every figure is made at once


def test_a_row_has_the_figures_of_runs_json(tmp_path: Path, etude: Callable[..., Outcome]) -> None:
    run = finished_run(tmp_path, {"records.tags": ["base"]})
    (told,) = json.loads(etude("runs", "--runs", tmp_path, "--json").out)
    (row,) = Listing(Readings()).payload(Library([tmp_path]), patience_seconds=ALL)["runs"]
    same = ("name", "status", "metric", "metric_first", "lower_is_better", "last_loss", "gap", "step", "steps",
            "tokens_per_second", "wall_seconds", "created")  # fmt: skip
    assert {name: row[name] for name in same} == {name: told[name] for name in same}
    assert row["best_value"] == told["metric_best"]
    assert row["best_step"] == told["metric_best_step"] == 20
    assert row["sparkline"] == [2.5, 2.6]
    assert (row["id"], row["tags"], row["objective"], row["data"]) == (
        run.info["id"], ["base"], "causal", "python-stdlib"
    )  # fmt: skip
    assert not row["ended_early"]


def test_findings_are_counted_by_severity(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    writer.append(*(Finding(5, "w", "e", "a", severity) for severity in ("error", "info", "info")))
    writer.close("stopped")
    (row,) = Listing(Readings()).payload(Library([tmp_path]), patience_seconds=ALL)["runs"]
    assert row["findings"] == {"error": 1, "warning": 0, "info": 2}


def test_the_journal_of_a_run_that_stays_the_same_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path)
    library = Library([tmp_path])
    listing = Listing(Readings())
    first = listing.payload(library, patience_seconds=ALL)
    listing.keep()

    def refuse(run: object) -> None:
        raise AssertionError("a journal was read again")

    monkeypatch.setattr(readings_module, "summarize", refuse)
    assert listing.payload(library, patience_seconds=ALL)["runs"] == first["runs"]
    assert Listing(Readings()).payload(library, patience_seconds=0)["runs"] == first["runs"]


def test_a_run_that_grows_has_new_figures(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    listing, library = Listing(Readings()), Library([tmp_path])
    before = listing.payload(library, patience_seconds=ALL)["runs"][0]
    assert (before["status"], before["step"]) == ("running", 5)
    assert before["heartbeat_age"] >= 0
    writer.append(*window(6, 10), evaluation(10, 2.25))
    readings_module_rest(listing)
    after = listing.payload(library, patience_seconds=ALL)["runs"][0]
    assert (after["step"], after["best_value"]) == (10, 2.25)
    writer.close("stopped")


def readings_module_rest(listing: Listing) -> None:
    """Let no rest be kept between two readings of a run that goes on."""
    listing._readings._made.clear()


def test_figures_that_are_not_made_yet_come_later_and_the_version_says_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    readings, library = Readings(), Library([tmp_path])
    listing = Listing(readings)
    first = listing.payload(library, patience_seconds=0)
    assert first["runs"][0]["pending"]
    assert first["runs"][0]["last_loss"] is None
    assert readings.summary(run, ALL) is not None
    assert listing.version(library) != first["version"]
    second = listing.payload(library, first["version"])
    assert "pending" not in second["runs"][0]
    assert listing.payload(library, second["version"]) == {"version": second["version"]}


def test_a_damaged_run_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    finished_run(tmp_path)
    bad = finished_run(tmp_path).path
    (bad / "journal.jsonl").unlink()
    (bad / "journal.jsonl").symlink_to("/etc/passwd")
    newer = finished_run(tmp_path).path
    info = json.loads((newer / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps({**info, "format": 99}))
    found = Listing(Readings()).payload(Library([tmp_path]), patience_seconds=ALL)
    assert len(found["runs"]) == 1
    assert {each["name"] for each in found["damaged"]} == {bad.name, newer.name}
    assert all("\n" not in each["problem"] for each in found["damaged"])


def test_the_kept_rows_are_no_matter_where_they_are_damaged(tmp_path: Path, cache: Path) -> None:
    finished_run(tmp_path)
    library = Library([tmp_path])
    for content in ("{", '{"maker": 1, "rows": []}', "[]"):
        (cache / "pages").mkdir(exist_ok=True)
        (cache / "pages" / "rows.json").write_text(content)
        assert Listing(Readings()).payload(library, patience_seconds=ALL)["runs"]
    shutil.rmtree(cache / "pages")


def test_a_long_list_waits_for_no_figures_which_come_with_a_new_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.ui.listing._MOST_AT_ONCE", 2)
    run = finished_run(tmp_path)
    for index in range(3):
        shutil.copytree(run.path, tmp_path / f"copy-{index}")
    listing, library = Listing(Readings()), Library([tmp_path])
    first = listing.payload(library, patience_seconds=ALL)
    assert [row["pending"] for row in first["runs"]] == [True] * 4
    wait_for(lambda: not any("pending" in row for row in listing.payload(library)["runs"]))
    assert listing.version(library) != first["version"]


def test_a_heartbeat_makes_no_figures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    listing, library = Listing(Readings()), Library([tmp_path])
    first = listing.payload(library, patience_seconds=ALL)
    monkeypatch.setattr(readings_module, "summarize", None)
    writer._beat = 0.0
    writer.beat()
    library.forget()
    second = listing.payload(library, first["version"], patience_seconds=ALL)
    assert second["runs"][0]["step"] == 5 and second["version"] != first["version"]
    writer.close("stopped")
