"""Several kinds as one: their weights, and the loss of all tasks."""

from pathlib import Path

import pytest
import torch

from etude.data.loader import Loader
from etude.data.mixture import Mixture
from etude.engine.batch import to_device
from etude.evaluate.tasks import Score
from etude.objectives.choose import join_kinds
from etude.objectives.several import Several, join_scores
from tests.objectives.sessions import begun
from tests.recipes import tasks


def test_a_sample_counts_as_much_as_another_whatever_its_task(tmp_path: Path) -> None:
    with begun(tasks(tmp_path), tmp_path / "runs") as session:
        kind = join_kinds(session.plan.tasks)
        assert isinstance(kind, Several) and list(kind.parts) == ["kinds", "words", "text"]
        for task in session.plan.tasks:
            per_sample = task.kind.targets_per_sample(task.corpus.train)
            assert kind.weights[task.name] * per_sample == pytest.approx(1.0)
        model = session.state.model.eval()
        loader = Loader(
            session.plan.train, global_batch_size=8, micro_batch_size=8, seed=1, attend_across_documents=True
        )
        for batch in (to_device(batch, torch.device("cpu")) for batch in loader.load(0).micro_batches):
            loss, targets = kind.loss_sum(model, batch)
            alone, number = kind.parts[batch.task].loss_sum(model, batch)
            assert (loss / targets).item() == pytest.approx((alone / number).item(), rel=1e-5)


def test_the_loss_of_all_tasks_is_weighed_by_their_samples(tmp_path: Path) -> None:
    with begun(tasks(tmp_path), tmp_path / "runs") as session:
        train = session.plan.train
        assert isinstance(train, Mixture)
        losses = {"kinds": 1.0, "words": 2.0, "text": 4.0}
        joined = join_scores({name: Score(loss, 10, None) for name, loss in losses.items()}, train)
        shares = dict(zip(train.parts, train.counts))
        expected = sum(shares[name] * loss for name, loss in losses.items()) / sum(shares.values())
        assert joined.loss == pytest.approx(expected) and joined.targets == 30
        assert shares["kinds"] == pytest.approx(2 * shares["words"], abs=1)
