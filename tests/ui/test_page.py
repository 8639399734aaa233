import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Control, Finding, Forecast, Generation, Judgement
from etude.records.store import Run, RunWriter
from etude.ui import page as module
from etude.ui.library import Library
from etude.ui.page import run_page
from etude.ui.readings import Readings
from tests.conftest import Outcome
from tests.report.runs import SCORES, attempt, evaluation, finished_run, new_run, window


def page_of(run: Run) -> dict[str, Any]:
    return run_page(Library([run.path.parent]), Readings(), run.info["id"])


def test_the_page_of_a_trained_run_has_the_figures_of_show(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Callable[..., Outcome]
) -> None:
    recipe = write_recipe({"evaluate.prompts": ["def "], "criteria": [{"figure": "loss", "below": 100.0}]})
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0
    (run,) = Library([tmp_path / "runs"]).runs().values()
    told = json.loads(etude("show", run.path, "--json").out)
    page = page_of(run)
    assert page["summary"] == told
    assert [name for name, _ in page["rows"]][:2] == ["run", "status"]
    assert page["state"] == "finished"
    assert page["criteria"] == [
        {"name": "loss below 100", "value": told["last_validation_loss"], "met": "met"}
    ]
    assert page["samples"] == 2
    assert [each["name"] for each in page["checkpoints"]][-1] == "step-000012"
    assert page["best"]["value"] == told["metric_best"]
    assert page["clip"] == 1.0
    assert page["unread"] is None
    assert not page["offers"]["actions"]
    assert any(command.startswith("etude export") for command in page["commands"])
    loss = page["charts"][0]
    assert loss["series"] == ["train/loss", "validation/loss"]
    assert "at step 12" in loss["caption"]


@pytest.fixture
def going_on(tmp_path: Path) -> Any:
    writer = new_run(tmp_path)
    writer.append(attempt(), Forecast(0, 100.0, 10.0, 10**9, 10**6, interval=[80.0, 120.0]))
    for last in range(5, 21, 5):
        writer.append(*window(last - 4, last))
    writer.append(evaluation(20, 2.5))
    yield writer
    writer.close("stopped")


def test_a_run_that_goes_on_says_what_it_can_be_asked_and_how_long_it_takes(going_on: RunWriter) -> None:
    going_on.append(Control(10, "set", "set optim.learning_rate = 0.001: lower", "r1",
                            {"optim.learning_rate": 1e-3}, 10, {"optim.learning_rate": 6e-4}, "anna@host", "page"))  # fmt: skip
    page = page_of(going_on.run)
    assert page["state"] == "running"
    assert {"pause", "stop", "checkpoint", "evaluate", "set"} <= set(page["offers"]["actions"])
    keys = {each["key"]: each for each in page["offers"]["keys"]}
    assert keys["optim.learning_rate"]["value"] == 1e-3
    assert "peak" in keys["optim.learning_rate"]["why"]
    assert 9 < page["forecast"]["seconds_left"] < 13  # 20 steps of half a second, and an evaluation of one
    assert page["forecast"]["interval"] == [80.0, 120.0]
    assert page["interventions"][-1]["what"] == "optim.learning_rate 0.0006 → 0.001: lower"
    assert page["interventions"][-1]["who"] == "anna@host (page)"


def test_findings_scores_and_criteria_are_told_with_their_evidence(going_on: RunWriter) -> None:
    going_on.append(
        Finding(20, "odd", "evidence", "advice", "error", [10, 20], ["cause"], {"seed": 3}, kind="odd"), SCORES,
        Judgement(20, {"gap below 1": 2.0, "loss below 3": 2.5, "test:f1 above 0.5": None},
                  ["loss below 3"], ["test:f1 above 0.5"]),
    )  # fmt: skip
    page = page_of(going_on.run)
    (finding,) = page["findings"]
    assert (finding["window"], finding["where"], finding["changes"]) == (
        [10, 20],
        "steps 10 to 20",
        {"seed": 3},
    )
    assert [each["met"] for each in page["criteria"]] == ["missed", "met", "open"]
    assert page["confusion"] == {"labels": ["x", "y"], "of": 2, "rows": [1, 1], "counts": [[1, 0], [0, 1]]}
    assert page["scores"][0]["systems"]["after"]["f1"] == [1.0, 0.9, 1.0]
    assert page["labels"] is None


def test_the_scores_of_each_label_are_those_of_the_best_evaluation(going_on: RunWriter) -> None:
    figures = {"f1": 0.5, "f1/x": 1.0, "f1/y": 0.0, "precision/x": 1.0, "recall/x": 1.0, "recall/y": 0.0}
    going_on.append(replace(evaluation(20, 1.0), metrics=figures), replace(evaluation(30, 2.0, best=False), metrics={"f1/x": 0.1}))  # fmt: skip
    found = page_of(going_on.run)["labels"]
    assert (found["step"], found["names"], found["of"]) == (20, ["x", "y"], 2)
    assert found["scores"] == {"precision": [1.0, None], "recall": [1.0, 0.0], "f1": [1.0, 0.0]}


def test_a_fork_is_a_child_of_its_parent(tmp_path: Path) -> None:
    parent = finished_run(tmp_path)
    child = finished_run(tmp_path)
    info = json.loads((child.path / "run.json").read_text())
    origin = {"run": parent.info["id"], "step": 20}
    (child.path / "run.json").write_text(json.dumps({**info, "origin": origin}))
    assert page_of(parent)["children"] == [child.info["id"]]
    assert page_of(child)["parent"] == parent.info["id"]


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no journal": lambda path: (path / "journal.jsonl").unlink(),
    "no lease": lambda path: (path / "lease.json").unlink(),
    "no recipe": lambda path: (path / "resolved.toml").unlink(),
    "a pipe for a journal": lambda path: put_a_pipe(path / "journal.jsonl"),
    "a journal of noise": lambda path: (path / "journal.jsonl").write_bytes(os.urandom(100_000)),
    "a newer journal": lambda path: (path / "journal.jsonl").write_text('{"type": "journal", "format": 99}\n'),
    "a lease of text": lambda path: (path / "lease.json").write_text("[" * 10_000),
    "a best that is a link": lambda path: (path / "best.json").symlink_to("/etc/passwd"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_answers_with_what_can_be_read(tmp_path: Path, damage: str) -> None:
    run = finished_run(tmp_path)
    DAMAGE[damage](run.path)
    page = page_of(Run(run.path))
    assert page["name"] == run.name
    assert json.dumps(page, allow_nan=False)
    if damage not in ("no journal", "a journal of noise", "a newer journal"):
        assert page["unread"]


def test_texts_of_an_enemy_are_bounded_and_cannot_drive_a_terminal(tmp_path: Path) -> None:
    writer = new_run(tmp_path, {"evaluate.prompts": ["p"]})
    writer.append(attempt(), *window(1, 5))
    odd = "<img src=x onerror=alert(1)>\x1b]0;x\x07\u202e"
    writer.append(*(Finding(n % 5, odd + "y" * 5_000, odd * 1000, odd) for n in range(400)))
    writer.append(*(Generation(5, odd * 1000, "z" * 1_000_000, {}) for _ in range(3)))
    writer.close("failed")
    text = json.dumps(page_of(writer.run), ensure_ascii=False)
    assert len(text) < 12_000_000
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "characters" in text[text.index('"cut"') :]


def test_of_many_findings_the_gravest_are_listed_and_of_many_labels_those_with_the_most_rows(
    tmp_path: Path,
) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    writer.append(*(Finding(3, f"finding {number}", "e", "a", "info") for number in range(1500)))
    writer.append(Finding(4, "the last", "e", "a", "error", window=[4, 4]))
    counts = [[number if row == number else 0 for row in range(200)] for number in range(200)]
    names = [f"label {number}" for number in range(200)]
    rows = sum(range(200))
    writer.append(replace(SCORES, rows=rows, distinct=rows, labels=names, confusion=counts))
    writer.close("finished")
    page = page_of(writer.run)
    assert len(page["findings"]) == 1000
    assert (page["findings"][-1]["what"], page["findings"][-1]["where"]) == ("the last", "step 4")
    assert "1,000 of 1,501 findings" in page["cut"]
    confusion = page["confusion"]
    assert (confusion["of"], confusion["labels"]) == (200, names[-60:])
    assert confusion["rows"] == list(range(140, 200))
    assert [row[place] for place, row in enumerate(confusion["counts"])] == confusion["rows"]


def test_windows_that_ask_at_once_share_an_answer_until_the_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    pages, identity = module.RunPages(Library([tmp_path]), Readings()), writer.run.info["id"]
    monkeypatch.setattr(module, "_SHARED_SECONDS", 600.0)
    first = pages.get(identity)
    first = pages.get(identity)  # the figures were made meanwhile
    assert pages.get(identity) is first
    writer.append(*window(6, 10))
    assert pages.get(identity)["summary"]["step"] == 10
    writer.close("stopped")
    assert pages.get(identity)["state"] == "stopped"
    monkeypatch.setattr(module, "_SHARED_SECONDS", 0.0)
    assert pages.get(identity) is not pages.get(identity)
