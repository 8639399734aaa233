"""The commands on the room of runs."""

import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from etude.recipe.schema import Recipe
from etude.records.folder import list_checkpoints
from etude.run import run_recipe
from etude.start import Options
from tests.conftest import Outcome

Etude = Callable[..., Outcome]


def test_runs_tell_their_room_and_give_it_back_when_asked_twice(
    make_recipe: Callable[..., Recipe], tmp_path: Path, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path)).run
    where = ("--runs", tmp_path)
    assert run.name in etude("runs", "--disk", *where).out
    told = json.loads(etude("runs", "--disk", "--json", *where).out)[run.name]
    assert told["checkpoints_bytes"] > told["removable_bytes"] > 0
    monkeypatch.setattr(sys, "stdin", StringIO("no\n"))
    refused = etude("runs", "rm", run.name, *where)
    assert refused.code == 2 and "nothing was removed" in refused.err
    assert len(list_checkpoints(run.checkpoints)) > 1
    monkeypatch.setattr(sys, "stdin", StringIO("yes\n"))
    assert etude("runs", "rm", run.name, *where).code == 0
    assert len(list_checkpoints(run.checkpoints)) == 1
    assert etude("runs", "rm", run.name, "--all", "--keep-record", *where).code == 2
    assert etude("runs", "rm", run.name, "--all", "--yes", *where).code == 0 and not run.path.exists()
    assert etude("runs", *where).code == 0
