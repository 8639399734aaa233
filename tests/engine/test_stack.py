"""Trainings that share passes are those of each alone, but for roundings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from etude.engine.stack import Stack
from etude.errors import FaultError
from etude.recipe.schema import Recipe
from etude.records import events
from etude.run import Training
from etude.start import Options
from tests import bases
from tests.recipes import finetuning

Record = TypeVar("Record", bound=events.Event)
Changes = dict[str, Any]
FIVE: list[Changes] = [
    {"optim.learning_rate": 5e-3},
    {"optim.learning_rate": 2e-2, "optim.weight_decay": 0.3, "schedule.kind": "cosine"},
    {"adapter.alpha": 4.0, "train.max_grad_norm": 0.5},
    {"adapter.rank": 3, "adapter.rank_stabilized": True, "optim.kind": "muon"},
    {"adapter.rank": 6, "optim.beta2": 0.99, "loss.label_smoothing": 0.0},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    bases.write_instructions(folder / "rows.jsonl")
    return bases.write_qwen2(folder / "qwen2")


def recipes(base: Path, each: Sequence[Changes], common: Changes | None = None) -> list[Recipe]:
    shared = {"adapter.rank": 4, "train.steps": 6, "evaluate.every_steps": 3, **(common or {})}
    return [
        finetuning(base.parent / "rows.jsonl", base, {**shared, "name": f"trial-{place}", **changes})
        for place, changes in enumerate(each)
    ]


def train_together(given: Sequence[Recipe], runs: Path, shared: Stack | None) -> list[Training]:
    """All trainings a step each in turn, to the end of the last."""
    trainings = [
        Training(recipe, Options(runs=runs, gradients=shared.add_gradients if shared else None))
        for recipe in given
    ]
    going = [iter(training) for training in trainings]
    while going:
        going = [each for each in going if next(each, None) is not None]
    return trainings


def weights(training: Training) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    path = sorted(training.run.checkpoints.glob("step-*"))[-1]
    return load_file(path / "adapter_model.safetensors")


def losses(training: Training) -> list[float]:
    return [each.loss for each in records(training, events.Step)]


def records(training: Training, kind: type[Record]) -> list[Record]:
    return [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, kind)]


def assert_same(alone: Training, together: Training, rel: float = 1e-5) -> None:
    assert losses(together) == pytest.approx(losses(alone), rel=rel)
    scores, expected = ([each.loss for each in records(one, events.Evaluation)] for one in (together, alone))
    assert len(scores) == 3 and scores == pytest.approx(expected, rel=rel)
    findings, known = ([each.kind for each in records(one, events.Finding)] for one in (together, alone))
    assert findings == known
    ours, theirs = weights(together), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("each", "common"),
    [
        (FIVE, {"train.steps": 10, "evaluate.every_steps": 5}),
        (FIVE[:2], {"train.micro_batch_size": 1, "adapter.dropout": 0.2}),
        (FIVE[2:4], {"adapter.dora": True, "train.activation_checkpointing": True}),
    ],
    ids=["plain", "accumulation and dropout", "dora and recomputed"],
)
def test_each_of_several_is_as_if_alone(
    base: Path, tmp_path: Path, each: Sequence[Changes], common: Changes
) -> None:
    shared = Stack()
    given = recipes(base, each, common)
    alone = train_together(given, tmp_path / "alone", None)
    together = train_together(given, tmp_path / "together", shared)
    assert (shared.passes, shared.alone) == (common.get("train.steps", 6) - 1, len(given))
    for one, other in zip(alone, together):
        assert_same(one, other)


def test_one_that_breaks_leaves_and_the_others_go_on(base: Path, tmp_path: Path) -> None:
    given = recipes(base, [{}, {"optim.learning_rate": 1e39}, {"optim.learning_rate": 2e-3}])
    alone = train_together([given[0], given[2]], tmp_path / "alone", None)
    shared = Stack()
    trainings = [
        Training(each, Options(runs=tmp_path / "runs", gradients=shared.add_gradients)) for each in given
    ]
    going, failed = {place: iter(each) for place, each in enumerate(trainings)}, {}
    while going:
        for place in list(going):
            try:
                if next(going[place], None) is None:
                    del going[place]
            except FaultError as error:
                failed[place] = str(error)
                del going[place]
    assert list(failed) == [1] and "infinite or NaN" in failed[1]
    assert_same(alone[0], trainings[0])
    assert_same(alone[1], trainings[2])


def test_trainings_on_other_rows_are_each_alone(base: Path, tmp_path: Path) -> None:
    given = recipes(base, [{}, {"seed": 5}], {"train.steps": 4})
    shared = Stack()
    train_together(given, tmp_path, shared)
    assert shared.alone >= 4 and shared.passes <= 1


def test_memory_for_some_of_them_is_enough(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = list[int](), Stack._pass

    def short(self: Stack, group: Any, step: Any, rank: int) -> Any:
        if len(group) > 2:
            raise MemoryError
        made.append(len(group))
        return make(self, group, step, rank)

    monkeypatch.setattr(Stack, "_pass", short)
    given, shared = recipes(base, FIVE[:4], {"train.steps": 2}), Stack()
    together = train_together(given, tmp_path / "together", shared)
    assert made == [2] * 2
    monkeypatch.undo()
    for one, other in zip(train_together(given, tmp_path / "alone", None), together):
        assert losses(other) == pytest.approx(losses(one), rel=1e-5)
