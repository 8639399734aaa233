"""The samples of a step are worked out as the loader does, for any rank, and any other is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from etude.data.loader import Loader
from etude.data.prepared import prepare
from etude.engine.planned import Planned
from etude.recipe.load import recipe_from
from tests.recipes import tiny


@pytest.mark.parametrize("sample", ["row", "document"])
def test_what_a_loader_reads_is_what_the_plan_has_and_no_other_step_is(corpus: Path, sample: str) -> None:
    split = prepare(recipe_from(tiny(corpus, {"data.sample": sample}))).train
    for step in (0, 3, 40):
        for rank in (0, 1):
            loader = Loader(
                split, global_batch_size=6, micro_batch_size=2, seed=5, attend_across_documents=False,
                rank=rank, ranks=2,
            )  # fmt: skip
            planned = Planned(split, 6, 5, rank, 2, step, 0)
            assert planned.find_other(loader.load(step)) == ""
            assert "where the plan has" in planned.find_other(loader.load(step + 1))
            assert "where the plan has" in replace(planned, rank=1 - rank).find_other(loader.load(step))
            short = replace(loader.load(step), micro_batches=loader.load(step).micro_batches[:-1])
            assert "tokens of samples that have" in planned.find_other(short)
            whole = replace(loader, attend_across_documents=True).load(step)
            assert Planned.find_missing(whole) == Planned.find_missing(loader.load(step)) == ""
            short = replace(whole, micro_batches=whole.micro_batches[:-1])
            assert Planned.find_missing(short) == "read 2 rows of 3 samples"
