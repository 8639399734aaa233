"""stub"""

from pathlib import Path

from etude import durable
from etude.records.store import Run


def write_report(run: Run) -> Path:
    durable.make_folder(run.path / "report")
    durable.write_file(run.path / "report" / "report.md", b"x")
    return run.path / "report" / "report.md"
