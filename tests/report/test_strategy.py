"""The strategy of a second version; its content is stated in tests/test_improve.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.report.history import read_history
from etude.report.strategy import write_strategy
from etude.run import run_recipe
from etude.start import Options
from tests.report.runs import attempt, evaluation, new_run, window


def test_texts_of_others_stay_texts(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path)).run
    evil = Finding(3, "<b>x</b> | [y](z)", "a | b\n# c", "<script>", changes={"train.steps": 3}, kind="odd")
    text = write_strategy(
        read_history(run), with_changes(run.recipe, {"train.steps": 3}), [evil], {"train.steps": evil},
        Path("second one.toml"),
    )  # fmt: skip
    assert "`etude train 'second one.toml'`" in text
    assert "<b>" not in text.replace("\\<b", "") and "\n# c" not in text
    assert "<script" not in text.replace("\\<script", "")


def test_a_model_that_got_worse_is_to_become_better_than_before_training(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    before, after = evaluation(0, 2.0), evaluation(10, 3.0)
    writer.append(attempt(), replace(before, best=False), *window(1, 10), replace(after, best=True))
    writer.close("finished")
    slower = with_changes(writer.run.recipe, {"optim.learning_rate": 1e-4})
    finding = Finding(10, "it rises", "2 to 3", "", changes={"optim.learning_rate": 1e-4}, kind="rises")
    text = write_strategy(
        read_history(writer.run), slower, [finding], {"optim.learning_rate": finding}, Path("v2.toml")
    )
    assert "comes below 2.00 of the model before training" in text
    assert "validation loss better than 2.00 before training, beyond" in text
