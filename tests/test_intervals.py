"""Intervals of a run are trained again: an honest run gives its own bits, a forged one is told.

The forged runs have checksums, heads and manifests that hold, so that only the replay can tell.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.forged import edit_loss, edit_rate, exchange_rows, move_weight
from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.replay import Interval, replay_intervals, replayable_intervals
from etude.report.deviations import Deviation
from etude.report.verifying import verify_run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.recipes import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    changes = {"checkpoint.keep": "all", "evaluate.every_steps": 4, "model.dropout": 0.1, "train.steps": 8}
    recipe = recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), changes))
    return run_recipe(recipe, Options(runs=folder / "runs")).run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def replayed(run: Path, *intervals: Interval) -> list[Deviation]:
    return replay_intervals(Run(run), 0, 0, intervals).deviations


def test_the_intervals_of_an_honest_run_give_its_bits(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    made = replay_intervals(Run(run), 5, 3)
    assert (made.deviations, made.examined) == ([], {"intervals replayed": 2, "steps replayed": 8})
    assert made.open == ["the run has 2 intervals between kept checkpoints"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda run: edit_loss(run, 6), "step 6: loss = "),
        (lambda run: edit_rate(run, 6), "step 6: learning_rate = "),
        (lambda run: move_weight(run, 8), "embed_tokens"),
    ],
)
def test_a_forged_run_is_told_by_the_replay_of_its_interval(
    run: Path, forge: Callable[[Path], None], told: str
) -> None:
    assert replayable_intervals(Run(run)) == [(0, 4), (4, 8)]
    forge(run)
    assert verify_run(run).deviations == []
    assert replayed(run, Interval(0, 4)) == []
    (deviation,) = replayed(run, Interval(4, 8))
    assert deviation.kind == "replay" and told in deviation.stated


def test_data_that_changed_is_told_and_so_is_what_it_was_trained_on(run: Path) -> None:
    (source,) = Run(run).recipe.data.train
    rows = Path(str(source.path))
    kept = rows.read_text()
    try:
        exchange_rows(run, rows, 3)
        assert verify_run(run).deviations == []
        assert replayed(run, Interval(0, 4))[0].kind == "replay"
        rows.write_text(kept)
        (deviation,) = replayed(run, Interval(0, 4))
        assert deviation.kind == "data" and "the rows here" in deviation.rule
        rows.unlink()
        with pytest.raises(InputError, match=r"corpus\.jsonl"):
            replayed(run, Interval(0, 4))
    finally:
        rows.write_text(kept)


def test_on_another_machine_values_are_held_within_tolerances(run: Path) -> None:
    path = run / "environment.json"
    path.write_text(path.read_text().replace('"numpy": "', '"numpy": "0.', 1))
    edit_loss(run, 6)  # by a thousandth
    made = replay_intervals(Run(run), 0, 0, [Interval(4, 8)])
    assert made.deviations == [] and "numpy was 0." in made.open[0]
    edit_rate(run, 6)
    assert [each.kind for each in replayed(run, Interval(4, 8))] == ["replay"]
