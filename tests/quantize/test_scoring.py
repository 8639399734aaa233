"""Figures of two models on the same samples: with themselves no difference, and that of the run's own journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from etude.export import find_folder, load_model
from etude.quantize.scoring import Examiner, compare
from etude.recipe.load import recipe_from
from etude.records.events import Evaluation
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.recipes import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("scoring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        values = tiny(write_corpus(folder / "corpus.jsonl", 60))
        yield run_recipe(recipe_from(values), Options(runs=folder / "runs")).run


def test_a_model_beside_itself_differs_by_nothing_and_has_the_loss_of_its_run(run: Run) -> None:
    examiner = Examiner(run, torch.device("cpu"))
    model = load_model(find_folder(f"{run.path}@last", run.path.parent), dtype=torch.float32)
    measured = examiner.measure(model)
    for each in compare(measured, examiner.measure(model)).values():
        assert each.difference == [0.0, 0.0, 0.0] and each.original == each.made
    told = [entry.event.loss for entry in run.ledger().entries if isinstance(entry.event, Evaluation)]
    assert measured.score.loss == pytest.approx(told[-1], rel=1e-5)


def test_training_samples_pass_and_speeds_are_above_zero(run: Run) -> None:
    examiner = Examiner(run, torch.device("cpu"))
    model = load_model(find_folder(str(run.path), run.path.parent), dtype=torch.float32)
    batches = examiner.training_batches(4)
    assert len(batches) == 4 and examiner.training_loss(model, batches) > 0
    examiner.run(model, batches)
    assert all(each > 0 for each in examiner.tokens_per_second(model, model))
