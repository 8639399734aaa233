"""Several tasks in one run, over one model, with stated ratios."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.cli.repeat import outcome_table
from etude.data.loader import Loader
from etude.data.mixture import Mixture
from etude.engine.batch import to_device
from etude.ensemble import make_ensemble
from etude.errors import EtudeError
from etude.models.build import build
from etude.objectives.classification import Classification
from etude.objectives.masked import Masked
from etude.plan import make_plan
from etude.records.events import Evaluation, Scores
from etude.report.card import model_card
from etude.report.compare import compare_runs
from tests.bases import write_pairs, write_t5
from tests.recipes import tasks
from tests.reference import train


def test_each_task_is_evaluated_and_scored_under_its_name(tmp_path: Path) -> None:
    training, losses = train(tasks(tmp_path), tmp_path / "runs")
    assert len(losses) == 8
    events = [entry.event for entry in training.run.ledger().entries]
    last = [event for event in events if isinstance(event, Evaluation)][-1]
    assert {"kinds:f1", "words:f1", "kinds:loss", "words:loss", "text:loss"} <= last.metrics.keys()
    shares = {"kinds": 0.5, "words": 0.25, "text": 0.25}
    assert last.loss == pytest.approx(
        sum(s * last.metrics[f"{name}:loss"] for name, s in shares.items()), rel=0.05
    )
    scores = {event.split: event for event in events if isinstance(event, Scores)}
    assert set(scores) == {"kinds validation", "words validation"}
    assert scores["kinds validation"].metric == "f1" and scores["words validation"].rows == 8
    assert (training.run.path / "predictions" / "words" / "validation.jsonl").is_file()
    assert training.run.best is not None and training.run.best["metric"] == "kinds:f1"
    report = (training.run.path / "report" / "report.md").read_text()
    assert "kinds validation rows" in report and "words validation rows" in report


def test_comparisons_repeats_and_cards_tell_the_task_they_speak_of(tmp_path: Path) -> None:
    runs = [train(tasks(tmp_path, {"seed": seed}), tmp_path / "runs")[0].run for seed in (1, 2)]
    shown = [result.title for result in compare_runs(runs).results]
    assert {"kinds validation f1", "words validation f1"} <= set(shown)
    header, *_ = outcome_table(runs)
    assert header[2] == "f1 on 12 kinds validation rows"
    with pytest.raises(EtudeError, match=r"has several tasks; an ensemble joins runs of a single one"):
        make_ensemble(runs)
    card = model_card(runs[0], runs[0].best["checkpoint"], "hf")
    assert "encoder that learnt several tasks" in card and "AutoModelForMaskedLM" in card
    assert "causal" not in card and str(tmp_path) not in card
    assert "On 12 kinds validation rows" in card


def test_transformers_loads_the_backbone_and_another_run_goes_on_from_it(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    training, _ = train(tasks(tmp_path), tmp_path / "runs")
    folder = training.run.checkpoints / "step-000008"
    model = AutoModelForMaskedLM.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["etude_tasks"] == {
        "kinds": ["none", "out", "sum"],
        "text": [],
        "words": ["none", "out", "sum"],
    }
    one = {"tasks": {}, "train.objective": "masked", "data.train": [{"path": str(tmp_path / "kinds.jsonl")}]}
    recipe = tasks(tmp_path / "again", {**one, "model.from": str(folder), "evaluate.metric": "loss"})
    plan = make_plan(recipe)
    built, new = build(recipe, plan.model, plan.pretrained, torch.float32)
    name = "roberta.encoder.layer.1.output.dense.weight"
    assert not new and torch.equal(built.get_parameter(name), model.get_parameter(name))


def test_a_step_is_the_mean_over_samples_of_each_tasks_own_loss(tmp_path: Path) -> None:
    recipe = tasks(
        tmp_path,
        {"train.steps": 1, "data.validation": "none", "evaluate.metric": "loss", "model.dropout": 0.0},
    )
    _, (loss,) = train(recipe, tmp_path / "runs")
    plan = make_plan(recipe)
    assert isinstance(plan.train, Mixture)
    model, _ = build(recipe, plan.model, plan.pretrained, torch.float32)
    loader = Loader(
        plan.train, global_batch_size=8, micro_batch_size=1, seed=17, attend_across_documents=True
    )
    top = bottom = 0.0
    for batch in loader.load(0).micro_batches:
        part = plan.train.parts[batch.task]
        corpus = next(task.corpus for task in plan.tasks if task.name == batch.task)
        objective: Any = Masked()
        if corpus.labels is not None:
            held = torch.from_numpy(part.classes.sum(0).astype("float32"))  # type: ignore[union-attr]
            balanced = (len(part) - held) / held if batch.task == "words" else None
            objective = Classification(corpus.labels.multi, balanced)
        with torch.no_grad():
            losses, targets = objective.loss_sum(model, to_device(batch, torch.device("cpu")))
        # A row of several labels has as many targets, one of a single label one, a masked text those that are
        # hidden.
        weight = {"words": 1 / 3, "kinds": 1.0, "text": len(part) / part.spans.scored}[batch.task]
        top, bottom = top + float(losses) * weight, bottom + float(targets) * weight
    assert loss == pytest.approx(top / bottom, rel=1e-5)


def test_micro_batches_do_not_change_losses(tmp_path: Path) -> None:
    changes = {"data.validation": "none", "evaluate.metric": "loss", "model.dropout": 0.0}
    _, whole = train(tasks(tmp_path, changes), tmp_path / "whole")
    _, parts = train(tasks(tmp_path, {**changes, "train.micro_batch_size": 2}), tmp_path / "parts")
    assert parts == pytest.approx(whole, rel=1e-5)


def test_several_kinds_of_pairs_share_an_encoder_decoder(tmp_path: Path) -> None:
    base = write_t5(tmp_path / "t5")
    there, back = write_pairs(tmp_path / "there.jsonl", 30), write_pairs(tmp_path / "back.jsonl", 40)
    sources = [
        {"path": str(there), "field": "source", "target": "target", "task": "there"},
        {"path": str(back), "field": "target", "target": "source", "task": "back"},
    ]
    changes = {
        "model.from": str(base), "data.train": sources, "evaluate.answers": 2, "evaluate.metric": "loss",
        "evaluate.answer_tokens": 6,
        "tasks": {"there": {"objective": "seq2seq"}, "back": {"objective": "seq2seq"}},
    }  # fmt: skip
    training, _ = train(tasks(tmp_path, changes), tmp_path / "runs")
    scores = [entry.event for entry in training.run.ledger().entries if isinstance(entry.event, Scores)]
    assert [score.split for score in scores] == ["there validation", "back validation"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.train.0.task": None}, r'has no task; say which it is for, as task = "kinds"'),
        ({"data.train.0.task": "kindz"}, r'task.* is "kindz", but there are kinds, words, text'),
        ({"data.train.2.task": "kinds", "data.train.2.label": "label"}, r"tasks.text.* has no source"),
        ({"train.objective": "masked"}, r"each of the tasks has its own"),
        ({"tasks.words.objective": "seq2seq"}, r"seq2seq beside others"),
        ({"tasks.text.ratio": 0.0}, r"tasks.text.ratio.* is 0.0; it must be above 0"),
        ({"tasks.text.rato": 1.0}, r"tasks.text.rato.* is not a key of a recipe; did you mean ratio"),
        ({"evaluate.metric": "f1"}, r'evaluate.metric is "f1"; this run knows .*kinds:f1'),
        ({"evaluate.metric": "text:perplexity"}, r'"text:perplexity"; this run knows .*text:loss'),
        ({"tasks": {}}, r'task.* is "kinds", but the recipe has no \[tasks'),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(EtudeError, match=said):
        make_plan(tasks(tmp_path, changes))
