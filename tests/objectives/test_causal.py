"""The loss of the next token."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from etude.objectives.causal import Causal
from etude.recipe.schema import Recipe
from tests.bases import write_gpt2, write_instructions
from tests.objectives.sessions import begun, one_batch
from tests.recipes import finetuning


def test_the_loss_is_the_sum_of_those_of_the_logits_at_all_targets(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path) as session, torch.no_grad():
        model, batch = session.state.model.eval(), one_batch(session)
        loss, targets = Causal().loss_sum(model, batch)
        logits = model.logits(batch.tokens, positions=batch.positions, lengths=batch.lengths)
        labels = batch.labels.flatten()
        expected = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-100, reduction="sum")
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert targets.item() == (labels != -100).sum()


def test_losses_of_targets_add_up_to_that_of_the_batch(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_gpt2(tmp_path / "base")
    for recipe in (make_recipe(), finetuning(rows, base)):
        with begun(recipe, tmp_path / recipe.name) as session, torch.no_grad():
            model, batch = session.state.model.eval(), one_batch(session)
            if hasattr(model, "head_weight"):
                bias = torch.linspace(-1, 1, len(model.head_weight()))
                model.head_bias = partial(torch.clone, bias)
            (loss, targets), losses = Causal().loss_sum(model, batch), Causal().losses(model, batch)
            assert len(losses) == targets and losses.sum().item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_bias_of_a_head_is_part_of_the_loss(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    with begun(make_recipe(), tmp_path) as session, torch.no_grad():
        model, batch = session.state.model.eval(), one_batch(session)
        logits = model.logits(batch.tokens, positions=batch.positions, lengths=batch.lengths)
        bias = torch.linspace(-1, 1, logits.shape[-1])
        model.head_bias = lambda: bias
        loss, _ = Causal().loss_sum(model, batch)
        scores, labels = (logits + bias).flatten(0, 1), batch.labels.flatten()
        expected = F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum")
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_model_of_transformers_has_the_loss_of_its_own_logits(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base, rows = write_gpt2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    with begun(finetuning(rows, base), tmp_path / "runs") as session, torch.no_grad():
        split = session.plan.corpus.validation
        loss, targets = Causal().loss_sum(session.state.model.eval(), one_batch(session))
        theirs, expected = AutoModelForCausalLM.from_pretrained(base).eval(), 0.0
        for sample in (split.sample(index) for index in range(len(split))):
            logits = theirs(torch.tensor(sample.tokens)[None]).logits[0]
            expected += F.cross_entropy(logits, torch.tensor(sample.labels), reduction="sum").item()
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        assert targets.item() == split.spans.scored


def test_figures_of_answers_are_there_where_rows_are_answered(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path / "text") as session:
        assert Causal().figures(session.recipe, session.plan.corpus) == {"perplexity", "bits_per_byte"}
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_gpt2(tmp_path / "base")
    with begun(finetuning(rows, base, {"evaluate.answers": 2}), tmp_path / "answers") as session:
        figures = Causal().figures(session.recipe, session.plan.corpus)
        assert {"perplexity", "bleu", "exact_match"} < figures
