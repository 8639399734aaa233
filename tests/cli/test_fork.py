import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.main import main
from etude.recipe.schema import Recipe
from etude.run import run_recipe
from etude.start import Options

Make = Callable[..., Recipe]
Fixture = pytest.CaptureFixture[str]


def test_a_fork_is_made_and_told_and_says_where_it_comes_from(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: Fixture
) -> None:
    run = run_recipe(make_recipe({"checkpoint.keep": "all"}), Options(runs=tmp_path)).run
    words = ["etude", "fork", f"{run.name}@8", "optim.learning_rate=1e-4", "--runs", str(tmp_path), "--json"]
    monkeypatch.setattr("sys.argv", [*words, "--no-start"])
    main()
    told = json.loads(capsys.readouterr().out)
    assert told["origin"] == {"run": run.info["id"], "step": 8, "changes": {}}
    assert told["next"] == f"etude resume {told['path']}"
    monkeypatch.setattr("sys.argv", ["etude", "show", told["path"]])
    main()
    shown = capsys.readouterr().out
    assert f"step 8 of {run.name}" in shown and "(fork), optim.learning_rate 0.003 → 0.0001: forked" in shown


def test_what_cannot_change_is_one_line_and_exit_code_2(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: Fixture
) -> None:
    run = run_recipe(make_recipe({"train.steps": 4}), Options(runs=tmp_path)).run
    monkeypatch.setattr("sys.argv", ["etude", "fork", str(run.path), "seed=3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: seed cannot change in a fork: the order of the data follows from it; etude"
    )
