"""The traffic of a step is what its ranks exchange, by hand."""

from pathlib import Path
from typing import Any

import pytest

from etude.gpus import GPUS
from etude.links import Cluster
from etude.plan import Plan
from etude.plan.assumed import plan_without
from etude.plan.traffic import Traffic, part_bytes, traffic_of
from etude.recipe.load import recipe_from
from tests.recipes import tiny

CLUSTER = Cluster(GPUS["h100"].link)
VOCABULARY, WIDTH, FEED, LAYERS = 300, 32, 64, 2
TABLE = VOCABULARY * WIDTH
BLOCK = 4 * WIDTH * WIDTH + 3 * WIDTH * FEED + 2 * WIDTH + 2 * 16  # with QK-norm over heads of 16


def plan_of(**changes: Any) -> Plan:
    fixed = {"train.devices": 4, "model.vocab_size": VOCABULARY, "train.micro_batch_size": 1}
    return plan_without(recipe_from(tiny(Path("not-here"), {**fixed, **changes})), rows=100)[0]


def traffic(plan: Plan) -> Traffic:
    made = traffic_of(plan, CLUSTER)
    assert made is not None
    return made


def test_replicas_add_up_their_gradients_once_a_step() -> None:
    plan = plan_of(**{"train.parallel": "replicate"})
    assert plan.parameters["total"] == TABLE + LAYERS * BLOCK + WIDTH
    (each,) = traffic(plan).exchanges
    assert (each.kind, each.nbytes, each.count) == ("all-reduce", 4 * plan.trainable, 1)
    assert traffic(plan).sent_bytes == 2 * 3 / 4 * 4 * plan.trainable


def test_shards_gather_blocks_twice_a_pass_and_deal_gradients_out() -> None:
    plan = plan_of(**{"train.parallel": "shard"})
    root = 4 * (TABLE + WIDTH)
    assert part_bytes(plan) == (root, 4 * LAYERS * BLOCK, LAYERS)
    gather, deal = traffic(plan).exchanges
    passes = 2  # eight samples of a step on four ranks, one at a time
    assert (gather.nbytes, gather.count) == (passes * (root + 2 * 4 * LAYERS * BLOCK), passes * 5)
    assert (deal.nbytes, deal.count) == (passes * 4 * plan.trainable, passes * 3)
    assert traffic(plan).sent_bytes == 3 / 4 * (gather.nbytes + deal.nbytes)


def test_matrices_of_muon_are_dealt_out_and_given_back() -> None:
    made = traffic(plan_of(**{"train.parallel": "shard", "optim.kind": "muon"}))
    matrices = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * FEED)
    assert made.exchanges[-1].nbytes == 2 * 4 * matrices and made.exchanges[-1].kind == "all-to-all"


def test_one_rank_has_no_traffic() -> None:
    assert traffic_of(plan_of(**{"train.devices": 1}), CLUSTER) is None


def test_a_step_lies_between_its_bounds() -> None:
    made = traffic(plan_of(**{"train.parallel": "shard"}))
    none, full = made.bounds(1e-4)
    assert none == pytest.approx(1e-4 + made.link_seconds + made.hop_seconds)
    assert full == max(1e-4, made.seconds) and made.bounds(10.0)[1] == 10.0
    values = made.values(10.0, 1000.0)
    assert values["tokens_per_second"]["full_overlap"] == 100.0
    assert values["exchanges"].keys() == {"gather_weights", "deal_out_gradients"}
    assert "bounds, nothing between them was measured" in made.overlap_row(10.0, 1000.0)
    assert "400 Gb/s" not in made.row() and "NVLink 4 450 GB/s" in made.row()  # on one machine
