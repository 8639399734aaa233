"""A run folder that a stranger made: links in it lead nowhere, and nothing behind them is in any answer."""

from pathlib import Path

import pytest

from etude.ui.library import Library
from tests.report.runs import finished_run
from tests.ui.serving import serving

CANARY = "canary-4711"
BESIDE = (
    "log.txt", "output.txt", "best.json", "environment.json", "journal.index", "report/report.md",
    "report/loss.svg",
)  # fmt: skip
PAGES = (
    "", "/series?names=train/loss", "/series.csv?names=train/loss", "/samples", "/recipe", "/report/loss.svg", "/log",
    "/log?file=output.txt",
)  # fmt: skip


@pytest.mark.parametrize("names", [BESIDE, ("report",), ("journal.jsonl",), ("resolved.toml",), ("lease.json",), ("run.json",)])  # fmt: skip
def test_what_a_link_in_a_run_leads_to_is_in_no_answer(names: tuple[str, ...], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for file in ("secret.txt", "report.md", "loss.svg"):
        (secret / file).write_text(f"<svg>{CANARY}</svg>\n" * 50)
    run = finished_run(tmp_path / "runs")
    (identity,) = Library([tmp_path / "runs"]).runs()
    if names != ("report",):
        (run.path / "report").mkdir()
    for name in names:
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(secret if name == "report" else secret / "secret.txt")
    with serving(tmp_path / "runs") as served:
        for path in ("/api/runs", *(f"/api/runs/{identity}{page}" for page in PAGES)):
            _, _, body = served.ask(path)
            assert CANARY.encode() not in body, path
        assert served.faults == []
    assert all(path.read_text().count(CANARY) == 50 for path in secret.iterdir())  # none was written through
