from collections.abc import Callable
from pathlib import Path

from etude.recipe.schema import Recipe
from tests.objectives.sessions import begun

Make = Callable[..., Recipe]


def test_a_course_begins_with_the_micro_batch_and_the_log_lines_of_the_plan(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"records.log_every_steps": None, "train.micro_batch_size": "auto"})
    with begun(recipe, tmp_path) as session:
        made = session.state.course.at(0), session.state.made_by.records.log_every_steps
        assert (made[0].micro_batch_size, made[1]) == (session.plan.micro_batch_size, 1)
