"""Faults of data, model and loss are named before the first step, and a healthy run hears nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etude import first_findings
from etude.assemble import assemble
from etude.audit import Audit, audit
from etude.engine.world import World
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.run import run_recipe
from etude.start import Options
from tests import bases, parallel, recipes

Make = Callable[..., Recipe]
APART = {"data.sample": "document"}


def run_audit(recipe: Recipe, *, is_fresh: bool | None = True, **options: Any) -> Audit:
    given = Options(**options)
    plan = make_plan(recipe, own=given.own)
    state, _ = assemble(plan, given, World(plan.device))
    return audit(plan, state, given.own, is_fresh=is_fresh)


def kinds(made: Audit) -> list[str]:
    return [each.kind for each in made.findings]


def own(recipe: Recipe, loss: parallel.Loss, *, is_causal: bool = True) -> Audit:
    model = parallel.Parallel(512, is_causal=is_causal)
    return run_audit(recipe, is_fresh=None, model=model, loss=loss)


@pytest.mark.parametrize("changes", [{}, APART, {"data.attend_across_documents": False}])
def test_a_healthy_decoder_hears_nothing(make_recipe: Make, changes: dict[str, Any]) -> None:
    made = run_audit(make_recipe(changes))
    assert (kinds(made), made.left_out) == ([], {})
    assert made.made == [
        "rows", "causality", "neighbours in a batch", "the same pass again", "sum of the loss", "first loss",
        "gradients", "sizes of updates",
    ]  # fmt: skip


def test_other_kinds_of_training_hear_nothing(tmp_path: Path, corpus: Path) -> None:
    labelled, pairs = bases.write_labelled(tmp_path / "l.jsonl"), bases.write_pairs(tmp_path / "p.jsonl")
    base = bases.write_encoder(tmp_path / "base")
    bert = bases.write_modernbert(tmp_path / "modernbert")
    t5 = recipes.seq2seq(pairs, bases.write_t5(tmp_path / "t5"))
    given = [
        recipes.classification(labelled), recipes.classification(labelled, base), recipes.masked(corpus),
        recipes.classification(labelled, bert), recipes.seq2seq(pairs), t5, recipes.tasks(tmp_path),
    ]  # fmt: skip
    for recipe in given:
        made = run_audit(recipe, is_fresh=None)
        assert (kinds(made), made.left_out) == ([], {}), recipe.name


@pytest.mark.parametrize("write", [bases.write_gptj, bases.write_gpt2, bases.write_qwen2])
def test_weights_that_know_nothing_pass_for_none_that_are_trained(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    rows, base = bases.write_instructions(tmp_path / "rows.jsonl"), write(tmp_path / "base")
    made = run_audit(recipes.finetuning(rows, base), is_fresh=False)
    assert kinds(made) == ["first_loss_off"] and "a model that knows nothing" in made.findings[0].evidence
    assert made.left_out == {}


@pytest.mark.parametrize("loss", [parallel.right, parallel.padded, parallel.padded_to_128])
@pytest.mark.parametrize("changes", [{}, APART])
def test_a_right_loss_of_the_user_hears_nothing(
    make_recipe: Make, loss: parallel.Loss, changes: dict[str, Any]
) -> None:
    made = own(make_recipe(changes), loss)
    assert (kinds(made), made.left_out) == ([], {})
    assert "targets of the loss" in made.made


@pytest.mark.parametrize(
    ("loss", "kind", "says"),
    [
        (parallel.unshifted, "labels_not_shifted", r"the model reads at 100% of the scored places"),
        (parallel.twice, "labels_shifted_twice", r"the one after that at 100%"),
        (parallel.padding_scored, "padding_scored", r"\d+% of the scored places are padding"),
        (parallel.padding_scored_to_128, "padding_scored", r"\d+% of the scored places are padding"),
        (parallel.rows_of_nothing, "padding_scored", r"\d+% of the scored places are padding"),
        (parallel.other_rows, "labels_misplaced", r"of another row"),
        (parallel.packed, "neighbour_visible", r"one sample of a batch was changed, and [\d,]+ of [\d,]+"),
        (parallel.mean, "loss_is_mean", r"two samples have the losses .* and 2 targets alone, .* and 1 "),
        (parallel.mean_of_many, "loss_mis_scaled", r"a target as the loop divides it, [\d.]+ by hand: "),
        (parallel.quarter, "loss_mis_scaled", r"by hand: 0\.25 times; it is scaled by 0\.25 and"),
    ],
)
def test_a_fault_of_a_loss_has_its_own_name(
    make_recipe: Make, loss: parallel.Loss, kind: str, says: str
) -> None:
    made = own(make_recipe({**APART, "train.seq_len": 128}), loss)
    told = set(kinds(made))
    assert kinds(made)[0] == kind
    assert (
        told == {kind} if kind in ("padding_scored", "labels_misplaced") else told <= {kind, "loss_is_mean"}
    )
    assert re.search(says, made.findings[0].evidence), made.findings[0].evidence


@pytest.mark.parametrize(
    ("fill", "scale", "found"),
    [(-100, 1.0, []), (0, 1.0, ["padding_scored"]), (-100, 8.0, ["first_loss_off"])],
)
def test_a_new_t5_with_tied_embeddings_begins_above_chance(
    tmp_path: Path, fill: int, scale: float, found: list[str]
) -> None:
    model = parallel.tied_t5()
    model.get_decoder().final_layer_norm.weight.data *= scale  # type: ignore[operator, union-attr]
    rows = bases.write_pairs(tmp_path / "pairs.jsonl")
    texts = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    for each in texts:  # targets enough for a mean
        each["target"] = " ".join([each["source"][::-1]] * 2)
    rows.write_text("".join(json.dumps(each) + "\n" for each in texts), "utf-8")
    recipe = recipes.seq2seq(rows, changes={"evaluate.answers": 0, "train.target_len": 64})
    made = run_audit(recipe, is_fresh=None, model=model, loss=parallel.of_pairs(fill))
    assert [each for each in kinds(made) if each != "contamination"] == found
    assert not any("first loss" in name or "targets" in name for name in made.left_out), made.left_out


@pytest.mark.parametrize(
    ("loss", "kind"),
    [(parallel.prompts_too, "prompt_scored"), (parallel.counts_all, "loss_mis_scaled")],
)
def test_answers_alone_are_to_be_scored_and_counted(tmp_path: Path, loss: parallel.Loss, kind: str) -> None:
    rows = bases.write_instructions(tmp_path / "rows.jsonl")
    values = recipes.tiny(rows, {"train.seq_len": 96})
    assert kinds(own(recipe_from(values), parallel.right)) == []
    assert kinds(own(recipe_from(values), loss)) == [kind]


@pytest.mark.parametrize("loss", [parallel.right, parallel.unshifted, parallel.padded_to_128])
def test_a_broken_mask_is_seen_in_one_pass(make_recipe: Make, loss: parallel.Loss) -> None:
    made = own(make_recipe(), loss, is_causal=False)
    assert kinds(made)[-1] == "future_visible"
    assert made.findings[-1].severity == "error"


def test_a_model_that_looks_at_nothing_yet_is_not_said_to_be_causal(make_recipe: Make) -> None:
    for is_causal in (True, False):
        model = parallel.Parallel(512, is_causal=is_causal)
        for block in model.blocks:
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.out.bias)
        made = run_audit(make_recipe(), is_fresh=None, model=model, loss=parallel.right)
        assert made.left_out["causality"].startswith("answers depend on no other token yet")
        assert "causality" not in made.made and kinds(made) == []


class Denoising(nn.Module):
    """A model that may see the whole row, as its loss asks for nothing of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = parallel.Parallel(512, is_causal=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.inner(tokens)
        return scores


def of_parity(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    labels = (batch.tokens % 2) + 2
    return nn.functional.cross_entropy(
        model(batch.tokens).flatten(0, 1), labels.flatten(), reduction="sum"
    ), (labels.numel())


def test_a_loss_of_other_targets_may_see_the_row(make_recipe: Make) -> None:
    made = run_audit(make_recipe(), is_fresh=None, model=Denoising(), loss=of_parity)
    assert not {"future_visible", "labels_not_shifted"} & set(kinds(made))


def test_a_test_that_fails_is_named_and_costs_nothing(make_recipe: Make) -> None:
    class Odd(parallel.Parallel):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            if tokens.shape[0] > 2:
                raise ValueError("too\nmany")
            return super().forward(tokens)

    made = run_audit(make_recipe(), is_fresh=None, model=Odd(512), loss=parallel.right)
    assert made.left_out["targets of the loss"] == "ValueError: too many" and kinds(made) == []
    assert "; not tested: targets of the loss (ValueError: too many)" in str(made)


@pytest.mark.parametrize(
    "changes",
    [{"model.dropout": 0.2}, {"train.precision": "fp16"}],
)
def test_training_has_the_same_bits_with_and_without(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    recipe = make_recipe({"train.steps": 3, "records.log_every_steps": 1, **changes})

    def weights(runs: Path) -> dict[str, torch.Tensor]:
        run = run_recipe(recipe, Options(runs=runs)).run
        return load_file(run.checkpoints / "step-000003" / "model.safetensors")

    tested = weights(tmp_path / "with")
    monkeypatch.setattr(first_findings, "audit", lambda *given, **named: Audit())
    plain = weights(tmp_path / "without")
    assert plain.keys() == tested.keys() and all(plain[name].equal(tested[name]) for name in plain)


def test_a_run_records_what_was_found_at_its_start(make_recipe: Make, tmp_path: Path) -> None:
    options = Options(runs=tmp_path, model=parallel.Parallel(512), loss=parallel.unshifted)
    run = run_recipe(make_recipe({"train.steps": 2}), options).run
    found = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert [(each.step, each.kind, each.severity) for each in found] == [(0, "labels_not_shifted", "error")]
