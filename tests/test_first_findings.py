from collections.abc import Callable
from pathlib import Path

from etude.first_findings import find_at_resume, find_at_start
from etude.recipe.schema import Recipe
from tests.objectives.sessions import begun


def test_what_is_no_checkpoint_and_what_is_damaged_is_named_at_a_resume(tmp_path: Path) -> None:
    foreign = ["step-1.bak", "step-2.bak", "step-3.bak", "step-4.bak"]
    found = list(find_at_resume(tmp_path / "checkpoints", 7, foreign, ["model is damaged"], "step-000007"))
    assert [(each.step, each.what, each.evidence) for each in found] == [
        (7, "not a checkpoint", "step-1.bak, step-2.bak, step-3.bak ... in checkpoints"),
        (7, "damaged checkpoint", "model is damaged"),
    ]
    assert found[1].advice == "the run continues from step-000007"


def test_new_tensors_and_disagreements_are_named_at_the_start_alone(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe({"stated.steps": 7}), tmp_path) as session:
        found = list(find_at_start(session.plan, session.state, ["head.weight"]))
        assert [each.what for each in found] == ["new weights", "stated figures"]
        session.state.step = 1
        assert list(find_at_start(session.plan, session.state, ["head.weight"])) == []
