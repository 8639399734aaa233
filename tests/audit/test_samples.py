"""Samples are cut to few tokens that still have a target, and laid out as training lays them out."""

from collections.abc import Callable

import numpy as np
import torch

from etude.audit.samples import choose_samples, choose_short, cut, lay_out
from etude.data.samples.sample import NO_TARGET, Sample
from etude.plan import make_plan
from etude.recipe.schema import Recipe

Make = Callable[..., Recipe]


def test_a_cut_sample_keeps_a_target() -> None:
    tokens, places = np.arange(200), np.arange(200)
    labels = np.full(200, NO_TARGET)
    labels[150:160] = 1
    short = cut(Sample(tokens, labels, np.zeros(200, dtype=np.int64), places), 50)
    assert short.tokens.tolist() == list(range(110, 160)) and (short.labels[-10:] == 1).all()
    assert short.positions.tolist() == list(range(50))
    labels[3] = 1
    assert cut(Sample(tokens, labels, np.zeros(200, dtype=np.int64), places), 50).tokens[0] == 0


def test_samples_of_other_lengths_stay_so(make_recipe: Make) -> None:
    for sample, lengths in (("row", {32}), ("document", {32, 28, 24})):
        train = make_plan(make_recipe({"data.sample": sample, "train.seq_len": 32})).corpus.train
        assert [len(each.tokens) for each in choose_samples(train, 4)] != []
        short = choose_short(train, 3)
        assert {len(each.tokens) for each in short} <= lengths
        batch = lay_out(short, "a", torch.device("cpu"), attend=True)
        assert batch.tokens.numel() == sum(len(each.tokens) for each in short) and batch.task == "a"
