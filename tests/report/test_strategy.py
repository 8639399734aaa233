"""The strategy of a second version; its content is stated in tests/test_improve.py."""

from collections.abc import Callable
from pathlib import Path

from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.report.history import read_history
from etude.report.strategy import write_strategy
from etude.run import run_recipe
from etude.start import Options


def test_texts_of_others_stay_texts(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path)).run
    evil = Finding(3, "<b>x</b> | [y](z)", "a | b\n# c", "<script>", changes={"train.steps": 3}, kind="odd")
    text = write_strategy(
        read_history(run), with_changes(run.recipe, {"train.steps": 3}), [evil], {"train.steps": evil}
    )
    assert "<b>" not in text.replace("\\<b", "") and "\n# c" not in text
    assert "<script" not in text.replace("\\<script", "")
