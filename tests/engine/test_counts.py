"""What the optimizer counted is held against the steps, and what it left out is named."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from etude.engine.counts import Counts
from etude.engine.host import to_host
from etude.recipe.schema import Recipe
from tests.objectives.sessions import begun


def test_weights_that_came_after_the_optimizer_are_named_where_the_model_is_looked_at(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    with begun(make_recipe(), tmp_path) as session:
        counts = Counts(session.state)
        counts.begin()
        step = next(session.steps())

        def broken(*, looks_at_model: bool) -> list[tuple[str, str]]:
            told = to_host({**counts.asked(), "measured": torch.stack([step.measured])})
            counts._updates = 0.0
            found = counts.find(told, (), looks_at_model=looks_at_model)
            return [(each.kind, each.evidence) for each in found]

        assert broken(looks_at_model=True) == []
        session.state.model.late = nn.Parameter(torch.ones(3))
        assert broken(looks_at_model=False) == []
        assert broken(looks_at_model=True) == [
            ("tensor_not_stepped", "late had fewer updates than the 1 of others")
        ]
