import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.records.events import Finding, Generation
from etude.ui import exporting
from etude.ui.exporting import export, write_page
from tests.conftest import Outcome
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


def test_the_answers_hold_all_that_the_pages_of_runs_ask_for(
    tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    one, two = finished_run(tmp_path), finished_run(tmp_path)
    found = export([one, two], "1.2.3")
    path = f"/api/runs/{one.info['id']}"
    assert found[path]["summary"] == json.loads(etude("show", one.path, "--json").out)
    assert found[path]["offers"] == {"actions": [], "keys": []}
    assert len(found["/api/runs"]["runs"]) == 2
    assert found[f"{path}/series?axis=tokens"]["series"]["train/loss"]["count"] == 40
    assert found[f"{path}/series?axis=epoch"]["at"] == {20: 1.0}  # the best
    assert {"/api/about", "/api/compare", f"{path}/samples", f"{path}/recipe", f"{path}/report",
            f"{path}/data", f"{path}/log"} <= found.keys()  # fmt: skip
    assert found["/api/about"]["read_only"]


def test_a_large_run_takes_fewer_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = new_run(tmp_path, {"evaluate.prompts": ["p"]})
    writer.append(attempt())
    for last in range(50, 3_001, 50):
        writer.append(
            *window(last - 49, last), evaluation(last, 2.5), Generation(last, "p", "x" * 20_000, {})
        )
    writer.close("stopped")
    assert len(write_page(export([writer.run], "1.2.3"))) < 5_000_000
    monkeypatch.setattr(exporting, "_RUN_BYTES", 0)
    found = export([writer.run], "1.2.3")
    path = f"/api/runs/{writer.run.info['id']}"
    assert path in found and f"{path}/samples" not in found  # the page says that it is not there
    series = found[f"{path}/series?axis=step"]["series"]["train/loss"]
    assert len(series["x"]) <= 2 * exporting._FEWEST_POINTS


def test_what_a_recipe_names_outside_of_its_run_is_in_no_exported_page(tmp_path: Path) -> None:
    """Paths: the recipe of a stranger's run may name a private file of this user as its data."""
    secret = tmp_path / "private.jsonl"
    secret.write_text("".join(json.dumps({"text": f"canary-4711 {n}"}) + "\n" for n in range(50)))
    run = finished_run(tmp_path / "runs", {"data.train": [{"path": str(secret)}], "train.seq_len": 32})
    page = write_page(export([run], "1.2.3"))
    assert b"canary-4711" not in page and b"Rows are not in an exported page" in page
    assert page.count(b"data:image/svg+xml;base64,") >= 3  # the charts of its report


def test_the_page_is_one_file_whose_modules_and_policy_are_within(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    odd = "</script><script>alert(1)</script><!--"
    writer.append(attempt(), *window(1, 5), Finding(5, odd, odd, odd))
    writer.close("stopped")
    page = write_page(export([writer.run], "1.2.3")).decode()
    assert page.count("</script>") == 3
    assert not re.search(r'(src|href)="(?!#)', page.partition("</head>")[0])
    assert "default-src 'none'" in page
    (data,) = re.findall(r'<script id="etude-data" type="application/json">(.*?)</script>', page, re.DOTALL)
    found = json.loads(data)
    assert found[f"/api/runs/{writer.run.info['id']}"]["findings"][0]["what"] == odd
    (imports,) = re.findall(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    modules = {
        name: base64.b64decode(address.partition(",")[2]).decode()
        for name, address in json.loads(imports)["imports"].items()
    }
    assert "etude/app.js" in modules
    for text in modules.values():
        assert not re.search(r'\bfrom\s*"\.', text)
        assert set(re.findall(r'\bfrom\s*"(etude/[\w./-]+)"', text)) <= modules.keys()


def test_the_command_writes_the_file_also_over_an_older_one(
    tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    run, out = finished_run(tmp_path / "runs"), tmp_path / "out.html"
    for _ in range(2):
        outcome = etude("ui", "--export", run.path, out)
        assert outcome.code == 0 and "opens without a server" in outcome.err
    assert b"etude-data" in out.read_bytes()
    refused = etude("ui", "--export", run.path)
    assert refused.code == 2 and "takes runs and then a file" in refused.err
