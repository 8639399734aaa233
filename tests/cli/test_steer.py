"""Commands to a run in another process, which answers while it trains."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Control, Note, Step
from etude.records.store import Run, list_runs
from tests.conftest import Outcome
from tests.forking import server
from tests.processes import wait_for

Etude = Callable[..., Outcome]


@pytest.fixture
def going(tmp_path: Path, write_recipe: Callable[..., Path], cache: Path) -> Iterator[Run]:
    """A run that goes on in another process for longer than any test."""
    recipe = write_recipe(
        {"train.steps": 200_000, "evaluate.every_steps": 100_000, "records.log_every_steps": 1}
    )
    runs = tmp_path / "runs"
    with (tmp_path / "out").open("w") as out:
        process = server().etude(
            ["train", recipe, "--runs", runs], stdout=out, stderr=out,
            env={**os.environ, "ETUDE_CACHE": str(cache)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    yield wait_for(
        lambda: next((run for run in (list_runs(runs) if runs.exists() else ()) if steps_of(run)), None),
        process,
    )
    if process.poll() is None:
        process.terminate()
    assert process.wait(60) == 75, (tmp_path / "out").read_text()


def steps_of(run: Run) -> int:
    return sum(isinstance(entry.event, Step) for entry in run.ledger().entries)


def test_each_verb_is_done_answered_and_recorded(going: Run, etude: Etude) -> None:
    def say(verb: str, *words: Any) -> Outcome:
        return etude(verb, going.path, *words)

    done = say("checkpoint")
    assert done.code == 0 and "checkpoint: saved as step-" in done.out and "acts " in done.err
    assert "validation loss" in say("evaluate").out
    assert "generate: " in say("sample", "def ").out
    changed = json.loads(say("set", "optim.learning_rate=1e-3", "--json", "--reason", "it jumps").out)
    assert (changed["action"], changed["changes"]) == ("change", {"optim.learning_rate": 1e-3})
    assert "note: odd" in say("note", "odd").out
    assert say("note", "a lesson", "--section", "lessons").code == 0
    assert "pause: " in say("pause").out and going.state == "paused"
    assert "paused already" in say("pause").err
    assert "resume: " in say("resume").out and going.state == "running"
    asked = say("checkpoint", "--no-wait")
    assert asked.code == 0 and "asked to checkpoint (request " in asked.out
    for words, said in {
        ("resume",): "is going on already",
        ("set", "optim.learning_rate=-1"): "it must be above 0",
        (
            "set",
            "seed=3",
        ): "seed cannot be changed while a run goes on; etude train RECIPE seed=VALUE --from ",
        ("set", "optim.weight_decay=0"): "optim.weight_decay=VALUE goes on with it in a run of its own",
        ("set", "no.key=3"): "no.key is not a key of a recipe; ",
        ("set", "run.grace=3s"): "then etude train RECIPE run.grace=VALUE goes on with it",
        ("set", "optim.learning_rate=1970-01-01"): "a date is no value",
        ("set", "seed"): "is not of the form key=value",
    }.items():
        verb, *rest = words
        refused = say(verb, *rest)
        assert (refused.code, len(refused.err.splitlines()) <= 2) == (2, True) and said in refused.err, words
    assert "stop: enough" in say("stop", "--reason", "enough").out
    entries = [entry.event for entry in going.ledger().entries]
    asked_by = {each.channel for each in entries if isinstance(each, Control) and each.request}
    assert asked_by == {"cli"} and any(isinstance(each, Note) for each in entries)
    while going.state != "stopped":  # it writes its report
        assert "the run ends here" in (late := say("pause").err) or "only a run that is going on" in late
    ended = say("pause")
    assert ended.code == 2 and "is stopped; only a run that is going on takes requests" in ended.err
    assert "is stopped, at no step; give a --section" in say("note", "late").err
    assert "give --on FILE to score run" in say("evaluate").err


def test_a_run_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path, etude: Etude) -> None:
    done = etude("stop", "nothing", "--runs", tmp_path)
    assert done.code == 2 and "there is no run nothing" in done.err


def test_steering_imports_no_torch() -> None:
    program = "import sys, etude.cli.steer, etude.control.ask; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
