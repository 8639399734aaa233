"""Requests that the page leaves for a run, and the answers of its journal."""

import json
import threading
from pathlib import Path

from etude.records.events import Control
from tests.report.runs import finished_run, new_run
from tests.ui.serving import serving


def test_a_request_is_left_for_a_run_that_goes_on_and_its_answers_are_found(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    run = writer.run
    with serving(tmp_path) as served:
        address = f"/api/runs/{run.info['id']}/requests"
        status, made = served.post(address, {"action": "set", "key": "optim.learning_rate", "value": 1e-4})
        assert status == 200
        line = json.loads((run.path / "control.jsonl").read_text())
        assert (line["id"], line["channel"], line["key"]) == (made["request"], "page", "optim.learning_rate")
        answers = f"{address}/{made['request']}"
        assert served.get(answers) == {"answers": [], "done": False, "state": "running"}
        writer.append(Control(3, "accept", "after this step", made["request"], channel="page"))
        assert [each["action"] for each in served.get(answers)["answers"]] == ["accept"]
        writer.append(Control(4, "set", "it was asked for", made["request"], {"optim.learning_rate": 1e-4}))
        found = served.get(answers)
        assert found["done"] and found["answers"][1]["words"] == "step 4: set: it was asked for"
        assert served.get(answers) == found
    writer.close("stopped")


def test_a_run_that_has_ended_and_odd_requests_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    ended = finished_run(tmp_path)
    writer = new_run(tmp_path)
    with serving(tmp_path) as served:
        status, answer = served.post(f"/api/runs/{ended.info['id']}/requests", {"action": "stop"})
        assert status == 409 and "only a run that is going on" in answer["error"]
        address = f"/api/runs/{writer.run.info['id']}/requests"
        for odd in (
            {}, {"action": 1}, {"action": "rm -rf"}, {"action": "stop", "key": "a"}, {"action": "stop", "who": "x"},
            {"action": "stop", "attempt": "x"}, {"action": "stop", "channel": "cli"}, {"action": "set"},
            {"action": "note", "text": "x" * 20_000}, {"action": "stop", "reason": {"a": 1}},
            {"action": "set", "key": "a", "value": ["x"]}, {"action": ["stop"]},
        ):  # fmt: skip
            status, answer = served.post(address, odd)
            assert status == 400 and "\n" not in answer["error"], odd
        assert served.ask(f"{address}/0123456789ab")[0] == 404
        assert not served.faults
    assert not (writer.run.path / "control.jsonl").exists()
    writer.close("stopped")


def test_many_requests_at_once_are_each_a_whole_line(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    with serving(tmp_path) as served:
        address, found = f"/api/runs/{writer.run.info['id']}/requests", list[int]()

        def ask() -> None:
            found.append(served.post(address, {"action": "checkpoint"})[0])

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [200] * 20
    lines = (writer.run.path / "control.jsonl").read_text().splitlines()
    assert len({json.loads(line)["id"] for line in lines if line}) == 20
    writer.close("stopped")
