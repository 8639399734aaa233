import base64
import json
import os
import re
from pathlib import Path

import pytest

from etude.errors import InputError, MissingError
from etude.records.events import Generation
from etude.records.store import Run
from etude.report.write import write_report
from etude.ui import writing
from etude.ui.readings import Readings
from etude.ui.writing import log, report, report_file, report_folder, samples, whole_report
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


def written(tmp_path: Path, texts: list[Generation]) -> Run:
    writer = new_run(tmp_path, {"evaluate.prompts": ["p"]})
    writer.append(attempt(), *window(1, 5), evaluation(5, 2.5), *window(6, 10), *texts)
    writer.close("stopped")
    return writer.run


def test_samples_stand_by_their_prompt_in_the_order_of_steps(tmp_path: Path) -> None:
    run = written(tmp_path, [
        Generation(5, "a", "one", {}, stopped=True), Generation(5, "b", "x", {}, reference="y", capability="k"),
        Generation(10, "a", "two", {}),
    ])  # fmt: skip
    first, second = samples(Readings(), run)["prompts"]
    assert [(each["step"], each["text"], each["best"]) for each in first["answers"]] == [
        (5, "one", True), (10, "two", False)
    ]  # fmt: skip
    assert (second["prompt"], second["reference"], second["capability"]) == ("b", "y", "k")


def test_of_too_many_samples_the_first_the_best_and_the_last_stay_and_that_is_said(tmp_path: Path) -> None:
    run = written(tmp_path, [Generation(n % 10, "a", f"{n}" + "z" * 15_000, {}) for n in range(400)])
    found = samples(Readings(), run)
    assert len(json.dumps(found)) < 3_000_000
    assert found["cut"][0].endswith("of 400 texts of a prompt, evenly spaced")
    assert any(each["best"] for each in found["prompts"][0]["answers"])


def test_the_log_is_told_from_its_end(tmp_path: Path) -> None:
    run = written(tmp_path, [])
    with (run.path / "log.txt").open("a") as file:
        file.write("".join(f"line {n} \x1b[31m\n" for n in range(100_000)))
    found = log(run, 3)
    assert found["lines"] == [f"line {n} \\x1b[31m" for n in (99_997, 99_998, 99_999)]
    assert len(log(run, 10**9)["lines"]) == 2_000
    assert log(run, 5, "output.txt") == {"lines": [], "size": 0}
    with pytest.raises(InputError, match="no log of this name"):
        log(run, 5, "../run.json")


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    run = written(tmp_path, [])
    (run.path / "log.txt").unlink()
    (run.path / "log.txt").symlink_to("/etc/passwd")
    with pytest.raises(InputError):
        log(run)


def test_the_report_is_that_of_the_command_and_the_run_folder_stays_as_it_is(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    found = report(run, "/api/runs/x/report")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert "<h2>Verdict</h2>" in found["html"]
    assert found["charts"]["loss.svg"] == "/api/runs/x/report/loss.svg"
    assert '<img src="/api/runs/x/report/loss.svg" alt="Training and validation loss"' in found["html"]
    assert b"<svg" in report_file(run, "loss.svg")
    assert b"<svg" in report_file(run, "report.html")
    assert report_folder(run) == report_folder(run)
    path = write_report(run)
    assert path.read_text("utf-8") == found["markdown"]
    assert path.with_name("loss.svg").read_bytes() == report_file(run, "loss.svg")


def test_the_report_that_a_run_wrote_is_shown_until_its_journal_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: str, **given: object) -> None:
        raise InputError("a report is made")

    monkeypatch.setattr(writing, "run_command", refuse)
    run = finished_run(tmp_path / "runs")
    path = write_report(run)
    found = report(run, "/r")
    assert found["markdown"] == path.read_text("utf-8") and found["charts"]["loss.svg"] == "/r/loss.svg"
    assert report_file(run, "loss.svg") == path.with_name("loss.svg").read_bytes()
    later = path.stat().st_mtime_ns + 1
    os.utime(run.path / "journal.jsonl", ns=(later, later))
    with pytest.raises(InputError, match="a report is made"):
        report(run, "/r")
    os.utime(run.path / "journal.jsonl", ns=(later - 1, later - 1))
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")  # a link is not followed
    with pytest.raises(InputError, match="a report is made"):
        report(run, "/r")


ACTIVE = [
    "<svg onload='alert(1)'/>", "<svg><script>alert(1)</script></svg>", "<svg><s:script>x</s:script></svg>",
    "<svg><image href='http://example.org/x.png'/></svg>", "<svg><use href='//example.org/x#y'/></svg>",
    "<svg><style>@import 'x'</style></svg>", "<svg><style>* {fill: url(http://example.org)}</style></svg>",
    "<!DOCTYPE svg [<!ENTITY x 'y'>]><svg/>", "<svg><foreignObject/></svg>", "<svg><a href='#'/></svg>",
    "<svg><set attributeName='href'/></svg>", "<?xml-stylesheet href='x'?><svg/>", "\0<svg/>",
]  # fmt: skip


@pytest.mark.usefixtures("drawn")
def test_a_whole_report_holds_the_charts_that_only_draw(tmp_path: Path) -> None:
    """Charts of a run, which a stranger may have drawn: one that would act or ask is left out."""
    run = finished_run(tmp_path / "runs")
    folder = write_report(run).parent
    assert all(writing._still(path) for path in folder.glob("*.svg"))  # all of ours
    path = folder / "loss.svg"
    found = whole_report(run)
    assert "img src=" in found["html"] and found["charts"] == {}
    inside = [
        base64.b64decode(each)
        for each in re.findall(r'src="data:image/svg\+xml;base64,(.*?)"', found["html"])
    ]
    assert path.read_bytes() in inside
    for text in ACTIVE:
        path.write_text(text)
        assert writing._still(path) is None, text
    path.write_text("<svg/>", "utf-16")
    assert writing._still(path) is None
    assert whole_report(run)["html"].count("<img") == len(inside) - 1
    assert "Training and validation loss" in whole_report(run)["html"]  # its caption
    assert "<img" not in whole_report(run, most_bytes=100)["html"]


@pytest.mark.parametrize(
    "name", ["../run.json", "report.md/../../x", "x.png", "LOSS.SVG", "", "a/b.svg", "no.svg"]
)
def test_no_other_file_is_given_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingError):
        report_file(finished_run(tmp_path), name)


def test_markup_in_a_run_stays_text_in_its_report(tmp_path: Path) -> None:
    odd = "<img src=x onerror=alert(1)> <script>alert(2)</script> [x](javascript:alert(3))"
    run = written(tmp_path, [Generation(10, odd, odd, {}, reference=odd)])
    text = report(run, "/r")["html"]
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "href" not in text


def test_the_report_of_a_damaged_run_says_why_there_is_none(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (run.path / "resolved.toml").write_text("name = 1")
    with pytest.raises(InputError, match="was changed"):
        report(run, "/r")
