"""The report of a sweep is made beside it, and what keeps it from being made is said in a line."""

from pathlib import Path

from etude.sweep.reporter import Reporter
from tests.sweeps import sweep_values, write_sweep


def test_the_last_report_is_named_or_the_reason_why_there_is_none(tmp_path: Path, corpus: Path) -> None:
    path = write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, {"train.steps": [4]}))
    reporter = Reporter(path, tmp_path / "place")
    reporter.renew()  # too soon after the start
    assert not (tmp_path / "place").exists()
    (tmp_path / "place").mkdir()
    report = tmp_path / "place" / "report" / "report.md"
    told: list[str] = []
    assert reporter.finish(told.append) and told == [f"report    {report}"]
    assert "1 missing" in report.read_text()
    path.unlink()
    assert not reporter.finish(told.append) and told[-1].startswith("no report: ")
