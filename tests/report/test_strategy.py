"""The strategy of a second version; its content is stated in tests/test_improve.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.events import DataUsed, Finding
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


def test_a_version_without_copies_has_the_steps_that_it_will_make(tmp_path: Path) -> None:
    writer = new_run(tmp_path, {"train.epochs": 2, "train.steps": None})
    copies = [{"kind": "exact", "share": 0.6}, {"kind": "near (Jaccard from 0.8)", "share": 0.3}]
    losses = {0: 4.0, 10: 3.0, 30: 2.0}
    writer.append(
        attempt(), DataUsed("x", {"duplicates": copies}), *window(1, 10),
        *(evaluation(step, loss, best=step > 0) for step, loss in losses.items()),
    )  # fmt: skip
    writer.close("finished")
    key = "data.deduplicate"
    finding = Finding(0, "rows are there twice", "60 %", "", changes={key: "exact"}, kind="duplicates")
    for how, an_epoch, held in (("exact", 8, "3.00 by step 10"), ("near", 2, "")):
        fewer = with_changes(writer.run.recipe, {key: how})
        text = write_strategy(read_history(writer.run), fewer, [finding], {key: finding}, Path("v2.toml"))
        assert f"| an epoch | {an_epoch} |" in text and f"| in all | {2 * an_epoch} |" in text
        assert f"an epoch has about {an_epoch} steps, where V1 had 20" in text
        assert held in text and "by step 30" not in text


def test_findings_that_are_acted_on_come_first(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 10), evaluation(10, 3.0))
    writer.close("finished")
    worst = Finding(9, "it rose", "1 to 3", "", severity="error", kind="rose")
    cause = Finding(0, "too large", "2", "", changes={"optim.learning_rate": 1e-4}, kind="large")
    slower = with_changes(writer.run.recipe, cause.changes)
    text = write_strategy(
        read_history(writer.run), slower, [worst, cause], {"optim.learning_rate": cause}, Path("v2.toml")
    )
    assert text.index("- **too large**") < text.index("- **it rose**")
    assert text.index("- again: too large") < text.index("- again: it rose")
