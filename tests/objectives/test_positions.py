"""The loss by the position of its targets."""

from collections.abc import Callable
from pathlib import Path

import torch

from etude.engine.batch import DeviceBatch
from etude.engine.world import World
from etude.objectives.positions import ByPosition
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation
from etude.report.history import read_history
from etude.report.results import before_after
from etude.report.summary import summarize_history
from etude.run import run_recipe
from etude.start import Options
from tests.report.runs import plain

WORLD = World(torch.device("cpu"))


def measured(batch: DeviceBatch, seq_len: int = 1024) -> dict[str, float]:
    """The loss of a target is its id here."""
    objective = ByPosition(lambda model, batch: batch.labels.flatten()[batch.scored].float(), seq_len)
    loss, targets = objective.loss_sum(torch.nn.Identity(), batch)
    assert (loss.item(), targets.item()) == (batch.labels.flatten()[batch.scored].sum(), len(batch.scored))
    return objective.figures(WORLD)


def test_a_range_has_the_mean_of_its_targets() -> None:
    labels = torch.zeros(2, 1024, dtype=torch.int64)
    labels[0, 255], labels[1, 256], labels[0, 511], labels[1, 1000] = 3, 5, 7, 9
    scored = torch.tensor([255, 511, 1024 + 256, 1024 + 1000])
    found = measured(DeviceBatch(tokens=labels, labels=labels, scored=scored))
    assert found == {"loss/0-255": 3.0, "loss/256-511": 6.0, "loss/512-1023": 9.0}


def test_positions_are_those_within_a_sequence() -> None:
    labels, positions = (
        torch.ones(1, 700, dtype=torch.int64),
        torch.cat((torch.arange(300), torch.arange(400))),
    )
    batch = DeviceBatch(
        tokens=labels,
        labels=labels,
        positions=positions[None],
        lengths=(300, 400),
        scored=torch.tensor([299, 300]),
    )
    assert measured(batch) == {"loss/0-255": 1.0, "loss/256-511": 1.0}


def test_one_range_is_none() -> None:
    labels = torch.ones(1, 200, dtype=torch.int64)
    assert measured(DeviceBatch(tokens=labels, labels=labels, scored=torch.arange(200))) == {}


def test_a_run_with_a_long_context_records_and_reports_its_loss_by_position(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    changes = {"train.steps": 1, "train.seq_len": 1024, "train.global_batch_size": 1, "data.sample": "row",
               "model.n_layer": 1, "evaluate.every_steps": 1, "data.validation_ratio": 0.4}  # fmt: skip
    run = run_recipe(make_recipe(changes), Options(runs=tmp_path / "runs")).run
    history = read_history(run)
    (evaluation,) = [each for each in history.events(Evaluation) if each.step == 1]
    by_position = {name: value for name, value in evaluation.metrics.items() if name.startswith("loss/")}
    assert list(by_position) == ["loss/0-255", "loss/256-511", "loss/512-1023"]
    assert min(by_position.values()) <= evaluation.loss <= max(by_position.values())
    text = "\n".join(plain(before_after(history, summarize_history(history))))
    assert "By position" in text and "512-1023" in text.replace("\\", "")
