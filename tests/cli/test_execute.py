"""The execution of a run for a person: its last lines and exit codes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from etude.cli.execute import start_ranks, tell_ranks, train_here
from etude.launch.ranks import Ended
from etude.recipe.schema import Recipe
from etude.start import Options

Make = Callable[..., Recipe]


def test_a_run_in_this_process_ends_with_its_verdict_and_what_to_type_next(
    tmp_path: Path, make_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    start_ranks(make_recipe())  # one device needs none
    ended = train_here(make_recipe({"train.steps": 1}), Options(runs=tmp_path / "runs"))
    assert ended.run is not None
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("tiny: reading and preparing the data")
    name = ended.run.name
    assert [line for line in lines if line.startswith("Finished 1 step, ")]
    assert lines[-5:] == [
        "best    step-000001, loss " + f"{ended.run.best['value']:.4f}" if ended.run.best else "",
        f"report  {ended.run.path / 'report' / 'report.md'}",
        f"next    etude show {name}",
        f"        etude generate {name} --prompt 'def '",
        f"        etude export {name} --to hf exported",
    ]


def test_ranks_that_fail_end_the_command_with_their_code_and_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_ranks(Ended(0))
    with pytest.raises(typer.Exit) as caught:
        tell_ranks(Ended(75, "rank 1 was killed"))
    assert caught.value.exit_code == 75 and capsys.readouterr().err == "rank 1 was killed\n"
