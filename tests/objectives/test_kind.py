"""A kind of training is one class and one row of a table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from etude.data.corpus import Corpus
from etude.engine.batch import DeviceBatch
from etude.evaluate.exam import Exam
from etude.objectives import choose
from etude.objectives.kind import Kind, Measured
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation
from etude.run import run_recipe
from etude.start import Options


@dataclass(frozen=True)
class Preference(Kind):
    """A sketch of training on pairs of answers: the first half of the rows is preferred over the
    second half."""

    beta: float

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = self._log_probabilities(model, batch)
        gap = log_p[0::2][: len(log_p) // 2] - log_p[1::2]
        return -functional.logsigmoid(self.beta * gap).sum(), torch.tensor(float(len(gap)))

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        return {"preferred"}

    def measure(self, exam: Exam) -> Measured:
        score = self.score(exam)
        return Measured(score, {"preferred": float(score.loss < 0.7)})

    def _log_probabilities(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        logits = model.logits(batch.tokens)  # type: ignore[operator]
        return (
            -functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
            .view_as(batch.labels)
            .sum(1)
        )


def test_a_new_kind_is_one_class_and_a_row_of_the_table(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choose.KINDS, "causal", lambda recipe, corpus: Preference(0.1))
    run = run_recipe(make_recipe({"evaluate.metric": "preferred"}), Options(runs=tmp_path)).run
    evaluations = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Evaluation)]
    assert evaluations and all("preferred" in evaluation.metrics for evaluation in evaluations)
    assert run.best is not None and run.best["metric"] == "preferred"
