"""The test set of a model of texts, scored once, at the end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from etude import Options
from etude.data.prepared import prepare
from etude.recipe.schema import Recipe
from etude.records.events import Judgement, Scores
from etude.report.write import write_report
from etude.rescore import rescore
from etude.run import run_recipe
from tests.bases import write_gpt2, write_instructions
from tests.recipes import finetuning


def test_a_model_of_texts_is_scored_on_its_test_set_as_transformers_scores_it(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    (tmp_path / "unseen.py").write_text("def unseen(value):\n    return value * 3 + 1\n" * 40)
    limit = {"figure": "test:loss", "below": 9.0}
    recipe = make_recipe({"data.test": [{"path": str(tmp_path / "unseen.py")}], "criteria": [limit]})
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    (scores,) = (entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores))
    test = prepare(recipe).test
    assert test is not None and scores.split == "test" and scores.rows == len(test)
    model = AutoModelForCausalLM.from_pretrained(run.checkpoints / f"step-{scores.step:06d}")
    nats = sum(
        torch.nn.functional.cross_entropy(
            model(torch.from_numpy(sample.tokens)[None]).logits[0],
            torch.from_numpy(sample.labels), reduction="sum",
        ).item()
        for sample in map(test.sample, range(len(test)))
    )  # fmt: skip
    value, low, high = scores.systems["after"]["loss"]
    assert value == pytest.approx(nats / test.spans.targets, rel=1e-5) and low <= value <= high
    last = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Judgement)][-1]
    assert last.values["test:loss below 9"] == value and last.met == ["test:loss below 9"]
    assert "test rows, with bootstrap intervals" in write_report(run).read_text()


def test_answers_to_the_test_set_are_those_that_evaluate_scores(tmp_path: Path) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_gpt2(tmp_path / "base")
    unseen = write_instructions(tmp_path / "unseen.jsonl")
    lines = [line.replace("add", "subtract") for line in unseen.read_text().splitlines()[:6]]
    unseen.write_text("\n".join(line.replace("print", "show") for line in lines) + "\n")
    changes = {"data.test": [{"path": str(unseen)}], "evaluate.answers": 3, "evaluate.answer_tokens": 8}
    changes |= {"data.leakage": {"action": "report", "max_ratio": 1.0}}
    run = run_recipe(finetuning(rows, base, changes), Options(runs=tmp_path / "runs")).run
    (scores,) = (entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores))
    name = f"{run.name}@step-{scores.step}"
    (system,) = rescore([name], unseen, runs=tmp_path / "runs", answers=3).systems
    mine = scores.systems["after"]
    assert mine.keys() == system.figures.keys() and {"loss", "bleu", "stop_rate"} < mine.keys()
    for figure, values in system.figures.items():
        assert np.allclose(mine[figure], values, rtol=1e-4, equal_nan=True), figure
    assert scores.notes == ["figures of answers are over 3 rows"]
