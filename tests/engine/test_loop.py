"""The mathematics of a step does not depend on how it is laid out."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from etude.data.loader import Loader
from etude.data.prepared import prepare
from etude.engine.loop import Step, TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.models.catalogue import decoder_config
from etude.models.decoder import Decoder
from etude.objectives.causal import Causal
from etude.recipe.course import Course
from etude.recipe.schema import Recipe
from tests.programs import run_program

CPU = torch.device("cpu")
Make = Callable[..., Recipe]


def run(recipe: Recipe, *, micro: int, steps: int = 20, model: nn.Module | None = None) -> list[Step]:
    corpus = prepare(recipe)
    if model is None:
        decoder = Decoder(
            decoder_config(recipe.model, vocab_size=corpus.tokenizer.vocab_size, seq_len=recipe.train.seq_len)
        )
        decoder.init_weights(recipe.seed)
        decoder.checkpoint_activations = recipe.train.activation_checkpointing
        model = decoder
    size = recipe.train.global_batch_size or 8
    precision = choose_precision(recipe.train.precision, CPU, targets_per_step=size * recipe.train.seq_len)
    state = TrainState(model, Optimizer(model, recipe.optim), precision, Course(recipe, steps))
    loader = Loader(
        corpus.train, global_batch_size=size, micro_batch_size=micro, seed=recipe.seed,
        attend_across_documents=recipe.data.attend_across_documents,
    )  # fmt: skip
    return list(train(state, loader.iterate(0, steps), Causal(), World(CPU)))


def losses(steps: list[Step]) -> list[float]:
    return [float(step.measured[0] / step.measured[1]) for step in steps]


UNEQUAL: dict[str, Any] = {"data.sample": "document", "train.seq_len": 64}


@pytest.mark.parametrize(("kind", "tolerance"), [("adamw", 1e-6), ("muon", 1e-3)])
@pytest.mark.parametrize("changes", [UNEQUAL, {"data.attend_across_documents": False}])
def test_accumulation_never_changes_the_loss(
    make_recipe: Make, kind: str, tolerance: float, changes: dict[str, Any]
) -> None:
    recipe = make_recipe({**changes, "optim.kind": kind})
    whole, *others = (losses(run(recipe, micro=micro)) for micro in (8, 2, 1))
    for other in others:
        assert other == pytest.approx(whole, rel=tolerance)
    assert whole[-1] < whole[0] - 0.5


def test_gradients_of_a_step_are_free_when_it_is_yielded(make_recipe: Make) -> None:
    recipe = make_recipe({"train.steps": 2})
    corpus = prepare(recipe)
    vocab_size, seq_len = corpus.tokenizer.vocab_size, recipe.train.seq_len
    model = Decoder(decoder_config(recipe.model, vocab_size=vocab_size, seq_len=seq_len))
    model.init_weights(recipe.seed)
    state = TrainState(
        model,
        Optimizer(model, recipe.optim),
        choose_precision("fp32", CPU, targets_per_step=1),
        Course(recipe, 2),
    )
    seen: list[weakref.ref[torch.Tensor]] = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda each: seen.append(weakref.ref(each.grad)))  # type: ignore[no-untyped-call]
    loader = Loader(
        corpus.train, global_batch_size=8, micro_batch_size=8, seed=1, attend_across_documents=True
    )
    for _ in train(state, loader.iterate(0, 2), Causal(), World(CPU)):
        assert len(seen) == len(list(model.parameters()))
        assert not any(grad() is not None for grad in seen)
        seen.clear()


def test_two_ranks_give_the_losses_of_one_process(make_recipe: Make, tmp_path: Path, cache: Path) -> None:
    recipe = make_recipe({**UNEQUAL, "train.steps": 20})
    alone = losses(run(recipe, micro=4))
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    done = run_program("engine/rank", [tmp_path], cache, ranks=2)
    assert done.code == 0, done.err[-2000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["losses"] == pytest.approx(alone, rel=1e-6)
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert ranks[0]["weights"] == ranks[1]["weights"]


def test_activation_checkpointing_gives_the_same_bits_with_dropout(make_recipe: Make) -> None:
    plain, checkpointed = (
        losses(
            run(make_recipe({"model.dropout": 0.1, "train.activation_checkpointing": on}), micro=8, steps=5)
        )
        for on in (False, True)
    )
    assert plain == checkpointed


def test_the_first_gradient_norm_and_clipping_are_those_of_torch(make_recipe: Make) -> None:
    recipe = make_recipe({"train.max_grad_norm": 0.01, "optim.kind": "adamw"})
    (step,) = run(recipe, micro=4, steps=1)
    corpus = prepare(recipe)
    model = Decoder(decoder_config(recipe.model, vocab_size=corpus.tokenizer.vocab_size, seq_len=32))
    model.init_weights(recipe.seed)
    batch = Loader(
        corpus.train, global_batch_size=8, micro_batch_size=8, seed=recipe.seed, attend_across_documents=True
    ).load(0).micro_batches[0]  # fmt: skip
    tokens, labels = torch.from_numpy(batch.tokens), torch.from_numpy(batch.labels)
    loss = nn.functional.cross_entropy(
        model.logits(tokens).flatten(0, 1), labels.flatten(), ignore_index=-100
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert float(step.measured[0] / step.measured[1]) == pytest.approx(loss.item(), rel=1e-5)
    assert float(step.measured[3]) == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_non_finite_step_touches_no_weight_and_the_run_goes_on(
    make_recipe: Make, kind: str, poison: float
) -> None:
    recipe = make_recipe({"optim.kind": kind, "train.steps": 4})
    corpus = prepare(recipe)
    model = Decoder(decoder_config(recipe.model, vocab_size=corpus.tokenizer.vocab_size, seq_len=32))
    model.init_weights(recipe.seed)

    class Poisoned(Causal):
        def loss_sum(self, model: nn.Module, batch: Any) -> Any:
            loss, targets = super().loss_sum(model, batch)
            return (loss * poison if state.step == 1 else loss), targets

    state = TrainState(
        model, Optimizer(model, recipe.optim), choose_precision("fp32", CPU, targets_per_step=1),
        Course(recipe, 4),
    )  # fmt: skip
    loader = Loader(
        corpus.train, global_batch_size=8, micro_batch_size=8, seed=1, attend_across_documents=True
    )
    weights = []
    skipped = []
    for step in train(state, loader.iterate(0, 4), Poisoned(), World(CPU)):
        weights.append(torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()]))
        skipped.append(bool(step.measured[4]))
    assert skipped == [False, True, False, False]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert weights[-1].isfinite().all()


def test_fp16_finds_its_scale_and_follows_fp32(make_recipe: Make) -> None:
    exact = losses(run(make_recipe(), micro=8, steps=10))
    half = losses(run(make_recipe({"train.precision": "fp16"}), micro=8, steps=10))
    assert half == pytest.approx(exact, rel=0.02)
