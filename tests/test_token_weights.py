"""Training with weights by the kind of token, against plain loops over the models of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from etude.data.lexer import KINDS
from etude.errors import RecipeError
from etude.plan import make_plan
from etude.recipe.load import load_recipe, recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation
from etude.run import Training
from etude.start import Options
from tests import bases
from tests.reference import train, train_plainly

STEPS = 5
WEIGHTS = {"identifier": 2.0, "comment": 0.2, "number": 0.0, "special": 0.5}
WRITE: dict[str, Callable[..., Path]] = {
    "causal": bases.write_qwen2, "foreign": bases.write_gpt2, "seq2seq": bases.write_t5,
    "masked": lambda folder: bases.write_encoder(folder, masked=True),
}  # fmt: skip


def weighted(folder: Path, kind: str, changes: dict[str, Any] | None = None) -> Recipe:
    """A recipe of one kind of training, and its base and rows in a folder."""
    objective = "causal" if kind == "foreign" else kind
    base, rows = folder / "base", folder / "rows.jsonl"
    if not rows.exists():
        WRITE[kind](base)
        write = {
            "causal": bases.write_instructions,
            "masked": bases.write_labelled,
            "seq2seq": bases.write_pairs,
        }
        write[objective](rows)
    source = {"path": str(rows)} | ({"field": "source", "target": "target"} if kind == "seq2seq" else {})
    values: dict[str, Any] = {
        "name": "weighted", "model": {"from": str(base)},
        "data": {"train": [source], "validation_ratio": 0.2, "sample": "row" if objective == "causal" else "document"},
        "train": {
            "objective": objective, "steps": STEPS, "seq_len": 96, "global_batch_size": 4,
            "micro_batch_size": 2, "device": "cpu", "precision": "fp32",
        },
        "loss": {"token_weights": WEIGHTS} | ({"label_smoothing": 0.1} if kind == "seq2seq" else {}),
        "optim": {"learning_rate": 2e-3, "weight_decay": 0.01},
        "schedule": {"kind": "constant"},
        "evaluate": {"every_steps": STEPS},
        "checkpoint": {"every_steps": STEPS},
    }  # fmt: skip
    return with_changes(recipe_from(values), changes or {})


@pytest.mark.parametrize("kind", WRITE)
def test_losses_are_those_of_a_plain_loop_over_transformers(kind: str, tmp_path: Path) -> None:
    recipe = weighted(tmp_path, kind, {"data.validation": "none"})
    _, ours = train(recipe, tmp_path / "runs")
    assert ours == pytest.approx(_train_in_transformers(recipe, kind), rel=1e-4)


def _train_in_transformers(recipe: Recipe, kind: str) -> list[float]:
    """The same steps by one sample at a time: sum(w * l) / sum(w) of the losses of torch."""
    import transformers

    plan = make_plan(recipe)
    assert plan.pretrained is not None
    load = {"masked": transformers.AutoModelForMaskedLM, "seq2seq": transformers.AutoModelForSeq2SeqLM}.get(
        kind, transformers.AutoModelForCausalLM
    )
    model: Any = load.from_pretrained(recipe.model.from_, dtype=torch.float32).train()
    split = plan.corpus.train

    def loss_of(ids: Any) -> torch.Tensor:
        loss, weight = torch.zeros(()), 0.0
        for index in ids:
            sample = split.sample(int(index))
            assert sample.weights is not None and len(set(sample.weights.tolist())) > 1
            tokens, labels = torch.tensor(sample.tokens)[None], torch.tensor(sample.labels)
            given = {"labels": labels[None]} if kind == "seq2seq" else {}
            each = F.cross_entropy(
                model(input_ids=tokens, **given).logits[0], labels, reduction="none",
                label_smoothing=recipe.loss.label_smoothing,
            )  # fmt: skip
            weights = torch.tensor(sample.weights) * (labels != -100)
            loss, weight = loss + (weights * each).sum(), weight + weights.sum()
        return loss / weight

    return train_plainly(recipe, split, model.parameters(), loss_of)


@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq"])
def test_how_a_step_is_laid_out_changes_nothing(kind: str, tmp_path: Path) -> None:
    recipe = weighted(tmp_path, kind, {"data.validation": "none"})
    ones, all_at_once = (
        train(with_changes(recipe, {"train.micro_batch_size": size}), tmp_path / f"runs{size}")[1]
        for size in (1, 4)
    )
    assert ones == pytest.approx(all_at_once, rel=1e-5)


def test_the_loss_of_validation_is_without_weights(tmp_path: Path) -> None:
    recipe = weighted(tmp_path, "causal")
    first = []
    for weights in (WEIGHTS, {}):
        training, _ = train(
            with_changes(recipe, {"loss.token_weights": weights}), tmp_path / f"runs{len(weights)}"
        )
        events = [entry.event for entry in training.run.ledger().entries]
        first.append(next(event for event in events if isinstance(event, Evaluation)))
    assert first[0].step == 0
    assert (first[0].loss, first[0].targets) == (first[1].loss, first[1].targets)


def test_a_run_that_was_broken_off_goes_on_as_if_it_were_not(tmp_path: Path) -> None:
    recipe = weighted(tmp_path, "causal", {"data.validation": "none"})
    whole, losses = train(recipe, tmp_path / "whole")
    before = []
    for step in Training(recipe, Options(runs=tmp_path / "parts")):
        before.append(float(step.measured[0] / step.measured[1]))
        if step.number == 2:
            break
    again, after = train(recipe, tmp_path / "parts")
    assert before + after == losses
    files = [run.checkpoints / f"step-{STEPS:06d}" / "model.safetensors" for run in (whole.run, again.run)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (
            "token_weights = { name = 2.0 }",
            r"loss.token_weights.name \(r.toml:3\) is \"name\"; it must be 'special', .* or 'identifier'",
        ),
        ("token_weights = { comment = -1 }", r"loss.token_weights.comment .* must be at least 0"),
        ("token_weights = { comment = inf }", r"loss.token_weights.comment .* must be a finite number"),
        ("token_weights = { comment = 'low' }", r"loss.token_weights.comment .* must be a number"),
        ("token_weights = 2", r"loss.token_weights .* must be a \[section\]"),
    ],
)  # fmt: skip
def test_weights_that_mean_nothing_are_refused(loss: str, said: str, tmp_path: Path) -> None:
    text = (
        'name = "x"\n[loss]\n{}\n[train]\n{}\n[tokenizer]\ntrain_vocab_size = 300\n[[data.train]]\npath = '
        '"x"\n'
    )
    (tmp_path / "r.toml").write_text(text.format(loss, "steps = 3\nglobal_batch_size = 2"))
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe(tmp_path / "r.toml")
    assert len(error.value.problems) == 1


def test_classification_and_weights_of_nothing_are_refused(tmp_path: Path) -> None:
    for changes, said in [
        (
            {"train.objective": "classification"},
            'loss.token_weights .* has no meaning for .* "classification"',
        ),
        ({"loss.token_weights": dict.fromkeys(KINDS, 0.0)}, "loss.token_weights .* is 0 for every kind"),
    ]:
        with pytest.raises(RecipeError, match=said):
            weighted(tmp_path, "causal", changes)
