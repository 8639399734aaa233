"""report.json says of which moment a report is, and the records of each of its figures."""

import json
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.report.sources import NAME, read_written
from etude.report.write import write_report
from tests.report.runs import finished_run


def test_each_figure_has_its_place_value_and_records(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    text = write_report(run).read_text()
    values = json.loads((run.path / "report" / NAME).read_text())
    for place in values["text"]:
        assert text[place["start"] : place["end"]] == place["text"]
        assert text[: place["start"]].count("\n") + 1 == place["line"]
    losses = [each for place in values["text"] for each in place["figures"] if each["name"] == "loss"]
    assert losses[0] == {
        "name": "loss", "value": 2.5, "unit": "nats per target", "statistic": "evaluation",
        "records": [{"kind": "evaluation", "first": 20, "last": 20, "n": 1}],
    }  # fmt: skip
    means = {each["name"]: each["records"] for each in values["figures"]}
    assert means["last_loss"] == [{"kind": "step", "first": 36, "last": 40, "n": 5}]
    written = read_written(run.path / "report")
    assert written.is_of_this_code and written.then["checkpoints"] == []
    assert written.journal.bytes == (run.path / "journal.jsonl").stat().st_size


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 1', '{"format": 1, "run": 3}'])
def test_what_no_report_writes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises((InputError, ValueError)):
        read_written(tmp_path)
