"""The room of a plan is the memory of its step in the micro-batch that it is to have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etude.plan import Plan
from etude.plan.assumed import plan_without
from etude.plan.room import make_room
from etude.recipe.load import recipe_from
from tests.recipes import tiny


def plan_of(**changes: Any) -> Plan:
    values = tiny(Path("not-here"), {"model.vocab_size": 300, "train.micro_batch_size": 4, **changes})
    return plan_without(recipe_from(values), rows=100)[0]


def test_a_step_that_is_too_large_is_told_with_the_micro_batch_that_fits() -> None:
    whole, _ = make_room(plan_of(), None)
    assert whole is not None and whole.fits and whole.micro_batch_size == 4
    tight, _ = make_room(plan_of(), whole.memory.device_bytes - 1)
    assert tight is not None and not tight.fits and tight.fit is not None
    assert (
        tight.fit.changes["train.micro_batch_size"] < 4
        and "with train.micro_batch_size" in dict(tight.rows())["room"]
    )


@pytest.mark.parametrize("size", [4, "auto"])
def test_where_nothing_fits_the_smallest_need_is_told(size: int | str) -> None:
    plan = plan_of(**{"train.micro_batch_size": size, "train.global_batch_size": 4, "train.device": "cpu"})
    room, _ = make_room(replace(plan, micro_batch_size=None if size == "auto" else size), 20_000)
    assert room is not None and room.is_hopeless and room.least is not None
    assert 20_000 < room.least <= room.memory.device_bytes and room.values()["least_bytes"] == room.least
    assert room.micro_batch_size == (1 if size == "auto" else 4)
    assert (
        "whatever the micro-batch" in (said := dict(room.rows())["room"])
        and "the least that it takes is" in said
    )


def test_the_memory_of_a_rank_with_pieces_is_less() -> None:
    sizes = {}
    for way in ("replicate", "shard"):
        room, _ = make_room(plan_of(**{"train.devices": 2, "train.parallel": way}), None)
        assert room is not None
        sizes[way] = room.memory.parts
    assert sizes["shard"]["weights"] == pytest.approx(sizes["replicate"]["weights"] / 2, rel=0.01)
