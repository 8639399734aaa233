"""Every command in every state of a run: its encoding, and its JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Evaluation, Generation, Note
from etude.report.charts import chart_svgs
from tests.conftest import Outcome
from tests.report.runs import attempt, evaluation, finished_run, new_run, window

Etude = Callable[..., Outcome]
ODD = "a\x1b[2J\x9b\u202eb\u200b\x7f\ud800"
COMMANDS = """
train recipe.toml | check recipe.toml --deep --json | data page recipe.toml | data show recipe.toml
prepare recipe.toml --again | runs | show tiny | report tiny | note tiny é --section next --author é
rate tiny --rater é --scores 4 | compare tiny tiny | export tiny out --to hf | generate tiny --prompt é
init --data corpus.jsonl --model m --out new.toml | schema
"""


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale(
    tmp_path: Path, cache: Path, write_recipe: Callable[..., Path]
) -> None:
    write_recipe({"train.steps": 2, "evaluate.prompts": ["é"]})
    (tmp_path / "fonts").mkdir()
    code = (
        "import sys\nfrom etude.cli.main import main\n"
        f"for line in {COMMANDS!r}.replace(chr(10), '|').split('|'):\n"
        "    sys.argv = ['etude', *line.split()]\n"
        "    if not line.strip():\n        continue\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, line\n"
    )
    # Warnings are errors; PyTorch passes over its own.
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-c", code]
    environment = {**os.environ, "ETUDE_CACHE": str(cache), "MPLCONFIGDIR": str(tmp_path / "fonts")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"report failed" not in done.stderr


def odd_run(runs: Path, state: str) -> None:
    """A run in some state, whose texts are odd and whose figures are not finite."""
    changes = {"evaluate.prompts": ["p"], "records.title": ODD.replace("\ud800", "")}
    writer = new_run(runs, changes)
    if state != "empty":
        writer.append(attempt(), *window(1, 5, bad=(1, 2, 3, 4, 5)), *window(6, 10))
        metrics = {f"exact_match/{ODD}": float("nan"), ODD: float("inf")}
        writer.append(
            Evaluation(10, float("nan"), float("inf"), None, 1, 1.0, False, metrics), evaluation(10, 2.5)
        )
        writer.append(Generation(10, ODD, ODD, {}, reference=ODD, capability=ODD), Note("problem", ODD, ODD))
    writer.close("failed" if state == "failed" else "finished")


@pytest.mark.parametrize("state", ["empty", "finished", "failed", "none"])
def test_json_is_json_and_text_is_clean_in_every_state(state: str, tmp_path: Path, etude: Etude) -> None:
    runs = tmp_path / "runs"
    if state != "none":
        odd_run(runs, state)
    else:
        runs.mkdir()
    for words in (["runs"], ["show", "small"], ["compare", "small", "small"], ["rate", "small", "--rater", ODD],
                  ["report", "small"]):  # fmt: skip
        for more in (["--json"], []):
            if words[0] == "rate" and not more:
                continue  # asks
            done = etude(*words, *more, "--runs", runs)
            assert done.code in (0, 2) and "Traceback" not in done.err, done
            for text in (done.out, done.err):
                assert all(character in "\n\u2800" or character.isprintable() for character in text), (
                    words,
                    text,
                )
            if more and not done.code:
                json.loads(done.out, parse_constant=pytest.fail)


def test_what_ratings_and_notes_say_is_kept_and_shown_clean(tmp_path: Path, etude: Etude) -> None:
    runs = tmp_path / "runs"
    odd_run(runs, "finished")
    for words in (["note", "small", ODD, "--section", "next", "--author", ODD], ["note", "small", "x" * 10**6,
                  "--section", "lessons"], ["rate", "small", "--rater", ODD, "--scores", "4"]):  # fmt: skip
        done = etude(*words, "--runs", runs)
        assert done.code == 0, done
        assert "\x1b" not in done.out + done.err
    for text, says in (("", "is empty"), (" \n", "is empty")):
        done = etude("note", "small", text, "--section", "next", "--runs", runs)
        assert done.code == 2 and says in done.err, done
    for scores in ("", ",", "6", "nan", "4,4", "1" * 10**5, ODD):
        done = etude("rate", "small", "--rater", "new", "--scores", scores, "--runs", runs)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and len(done.err) <= 301, done
    assert etude("report", "small", "--runs", runs).code == 0
    report = next(runs.glob("small-*")) / "report" / "report.md"
    text = report.read_text(encoding="utf-8")
    assert "\x1b" not in text and r"a\x1b[2J" in text


def test_a_log_line_is_one_line(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.log("a\n2020-01-01 00:00:00  forged\x1b[2J")
    writer.close("finished")
    (line,) = (writer.run.path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert line.endswith(r"a 2020-01-01 00:00:00  forged\x1b[2J")


@pytest.mark.usefixtures("drawn")
def test_charts_hold_no_foreign_markup(tmp_path: Path) -> None:
    from etude.report.history import read_history

    svgs: dict[str, Any] = chart_svgs(read_history(finished_run(tmp_path, {"records.title": "<script>"})))
    assert all(b"<script" not in svg for svg in svgs.values())
