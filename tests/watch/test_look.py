"""Looks at runs and logs."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import append_note, create_run
from etude.run import run_recipe
from etude.start import Options
from etude.watch.look import look_at_log, look_at_run


def write(path: Path, losses: list[float]) -> Path:
    path.write_text(
        "".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses, 1))
    )
    return path


def test_a_log_is_watched_from_its_first_row_to_its_last(tmp_path: Path) -> None:
    look = look_at_log(write(tmp_path / "a", [3.0, 2.0, math.nan, 2.0]))
    assert [(finding.kind, finding.step) for finding in look.findings] == [("non_finite", 3)]
    assert look.figures == ["loss"] and len(look.points) == 4
    values = look.to_dict()
    assert values["first_step"] == 1 and values["last_step"] == 4 and values["format"] == "JSON Lines"
    json.dumps(values["unknown"])


def test_of_several_runs_the_last_is_looked_at_and_the_others_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("step,loss\n" + "1,nan\n2,nan\n3,nan\n" + "1,3.0\n2,2.5\n3,2.0\n")
    look = look_at_log(tmp_path / "a")
    assert look.others == 1 and look.findings == [] and look.points[0].loss == 3.0


def test_a_run_has_what_was_found_while_it_went_on_and_each_condition_once(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    assert look_at_run(run).findings == [] and look_at_run(run).format == ""
    assert look_at_run(run).facts.classes and not {each.about for each in look_at_run(run).unknown} & {
        "memory"
    }
    probed = Finding(3, "a probe found it", "2 of 3", "do this", kind="probed", causes=["labels"])
    append_note(run, probed)
    append_note(run, Finding(4, "damaged checkpoint", "x", "y"))  # of no kind: not of the watch
    assert look_at_run(run).findings == [probed]


def test_a_run_without_a_step_is_refused(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    writer = create_run(tmp_path / "runs", make_recipe())
    writer.close("stopped")
    with pytest.raises(InputError, match="has made no step yet"):
        look_at_run(writer.run)
