"""`etude verify` says what does not follow from the records, and exits with 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.report.write import write_report
from tests.report.runs import finished_run


def test_an_edited_report_is_told_and_exits_with_1(etude: Callable[..., Any], tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    path = write_report(run)
    honest = etude("verify", str(run.path))
    assert honest.code == 0 and "all that was examined follows from the records" in honest.err
    path.write_text(path.read_text().replace("## Settings", "It beats every other model.\n\n## Settings"))
    told = etude("verify", str(run.path))
    assert told.code == 1 and "report/report.md:" in told.out and "(orphan): stands: It beats" in told.out
    values = json.loads(etude("verify", run.name, "--runs", str(tmp_path), "--json").out)
    assert [each["kind"] for each in values["deviations"]] == ["orphan"]
