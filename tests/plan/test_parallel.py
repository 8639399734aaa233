"""The choice between replicas and shards: by the share of the memory that each rank would hold."""

from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import RecipeError
from etude.plan import make_plan, parallel
from etude.plan.parallel import choose_parallel
from etude.plan.rows import short_rows
from etude.recipe.load import recipe_from
from tests.bases import write_corpus
from tests.recipes import tiny

GB = 10**9


@pytest.mark.parametrize(
    ("changes", "room", "kind"),
    [
        ({}, 33 * GB, "replicate"),
        ({}, 31 * GB, "shard"),  # 16 bytes of each of a billion weights are over half of it
        ({"optim.kind": "muon"}, 25 * GB, "replicate"),
        ({"train.compile": True}, 31 * GB, "replicate"),
        ({"train.devices": 1}, 31 * GB, "replicate"),
        ({"train.parallel": "shard"}, 99 * GB, "shard"),
        ({"train.parallel": "replicate"}, GB, "replicate"),
    ],
)
def test_what_would_take_over_half_of_a_rank_is_sharded(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], room: int, kind: str
) -> None:
    monkeypatch.setattr(parallel, "capacity", lambda device: room)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    recipe = recipe_from(tiny(Path("none"), {"train.devices": 2, **changes}))
    found = choose_parallel(
        recipe, parameters=GB, trainable=GB, device=torch.device("cuda"), precision="bf16"
    )
    assert found.kind == kind


def test_frozen_weights_count_as_they_are_kept_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "capacity", lambda device: 10 * GB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    recipe = recipe_from(tiny(Path("none"), {"train.devices": 2}))
    found = choose_parallel(
        recipe, parameters=2 * GB, trainable=0, device=torch.device("cuda"), precision="bf16"
    )
    assert found.kind == "replicate"
    assert found.why == "weights, gradients and optimizer state are 4.0 GB, a rank has 10 GB"
    found = choose_parallel(
        recipe, parameters=2 * GB, trainable=0, device=torch.device("cuda"), precision="fp32"
    )
    assert found.kind == "shard"


def test_the_plan_says_the_way_of_its_ranks_and_has_a_sample_for_each(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 6)
    changes = {"train.devices": 2, "data.sample": "document", "data.validation": "none"}
    values = tiny(corpus, changes)
    del values["data"]["validation_ratio"]
    assert (
        "2 ranks (replicate: weights, gradients" in dict(short_rows(make_plan(recipe_from(values))))["device"]
    )
    values["train"] |= {"devices": 8}
    with pytest.raises(
        RecipeError, match=r"train.devices is 8, but there are 6 training samples; use 6 at most"
    ):
        make_plan(recipe_from(values))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.devices": 1}, 'is "shard", but the run has one rank'),
        ({"train.devices": 2, "train.compile": True}, "does not go with train.parallel"),
    ],
)
def test_shards_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_from(tiny(Path("none"), {"train.parallel": "shard", **changes}))
