"""The choice of a kind of training."""

from collections.abc import Callable
from pathlib import Path

from etude.objectives.causal import Causal
from etude.objectives.choose import KINDS, choose_kind, join_kinds
from etude.own import Own
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.schema import Recipe
from tests.objectives.sessions import begun


def test_every_kind_of_a_recipe_has_a_row() -> None:
    assert set(KINDS) == set(TRAINING_KINDS)


def test_the_only_task_of_a_run_is_trained_by_its_kind(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path) as session:
        kind = choose_kind(session.recipe, session.plan.corpus, Own())
        assert kind == Causal() == join_kinds(session.plan.tasks)
