"""`etude evaluate` prints a table or JSON, and writes a file only where it is told to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import misleading as made

Get = Callable[..., Any]


def test_evaluate_prints_a_table_or_json_and_writes_what_it_is_told(
    etude: Get, misleading: Get, tmp_path: Path
) -> None:
    runs = misleading(made.equal_within_noise)
    names, test = [run.path for run in runs], runs[0].recipe.data.test[0].path
    shown = etude("evaluate", *names, "--on", test)
    assert shown.code == 0 and "are not distinguishable: f1 is" in shown.out and shown.err == ""
    assert max(map(len, shown.out.splitlines()[4:])) <= 100
    out = tmp_path / "scores.json"
    written = etude("evaluate", *names, "--on", test, "--json", "--out", out)
    assert json.loads(written.out) == json.loads(out.read_text())
    assert [system["rows"] for system in json.loads(written.out)["systems"]] == [42, 42]
    assert f"written to {out}" in written.err


def test_evaluate_refuses_what_it_cannot_score_in_one_line(etude: Get, misleading: Get) -> None:
    run = misleading(made.equal_within_noise)[0]
    for words, wrong in (
        (["evaluate", run.path, "--on", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["evaluate", run.path], "give --on FILE to score run"),
        (["evaluate", "nothing", "--on", run.recipe.data.test[0].path], "there is no run nothing"),
        (
            ["evaluate", run.path, "--on", run.recipe.data.test[0].path, "--out", run.path / "x"],
            "inside the folder",
        ),
    ):
        found = etude(*words)
        assert found.code == 2 and found.out == "" and wrong in found.err and found.err.count("\n") == 1


def test_evaluate_refuses_a_k_that_gives_no_figure(etude: Get, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for words, wrong in (
        (["--k", "0"], "expected numbers"), (["--k", "1,x"], "expected numbers"), (["--k", "1,5"], "--samples 20"),
        (["--samples", "3"], "go with --on and --k"), (["--k", "1"], "is no problem"),
    ):  # fmt: skip
        found = etude("evaluate", "none", "--on", tmp_path / "rows.jsonl", *words)
        assert found.code == 2 and found.out == "" and wrong in found.err and found.err.count("\n") == 1
