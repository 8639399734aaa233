"""A rank with pieces of the weights holds a share of what they are, and a few blocks whole for a moment."""

from dataclasses import replace

import torch

from etude.objectives.causal import Causal
from etude.plan.memory import estimate_memory, trace_step
from etude.plan.pieces import gathered_bytes, in_pieces

from .steps import build, decoder, recipe_of, rows, subject

CASE = subject(recipe_of(), decoder(), Causal(), rows(2, 16))


def test_weights_and_state_fall_as_the_ranks_and_gathered_blocks_stay() -> None:
    one, eight, many = (estimate_memory(replace(CASE, pieces=count)) for count in (1, 8, 1024))
    for kind in ("weights", "optimizer state"):
        assert one.parts[kind] / 8 <= eight.parts[kind] <= one.parts[kind] / 8 + 8 * 100
        assert many.parts[kind] < 0.02 * one.parts[kind]
    assert eight.parts["gathered weights"] == many.parts["gathered weights"]


def test_gathered_are_the_model_but_its_blocks_and_two_of_these() -> None:
    model = build(CASE)
    weights = list(model.model.layers[0].parameters())
    block = sum(each.numel() for each in weights)
    norms = sum(each.numel() for each in weights if each.dim() == 1)
    rest = sum(each.numel() for each in model.parameters()) - 3 * block
    assert gathered_bytes(model, torch.float32) == {
        "gathered weights": 4 * (rest + 2 * block), "gathered gradients": 4 * (rest + 3 * block),
    }  # fmt: skip
    halves = gathered_bytes(model, torch.bfloat16)
    assert halves["gathered weights"] == 4 * rest + 2 * 2 * (block + norms)
    assert halves["gathered gradients"] == 4 * rest + 2 * (block + norms) + 2 * 4 * block


def test_blocks_that_are_gathered_in_half_are_not_cast() -> None:
    trace, model = trace_step(replace(CASE, precision="bf16")), build(CASE)
    casts = [each for each in in_pieces(trace, model, 4).blocks if each.kind == "cast weights"]
    assert sum(each.nbytes > 0 for each in casts) < len(casts)
    assert not any(each.nbytes for each in casts if each.module.startswith("model.layers."))
