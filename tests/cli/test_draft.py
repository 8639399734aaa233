"""What the comments of a recipe by etude init say is what its plan and its run then are."""

import re
from pathlib import Path

import pytest

from etude.cli.init import find_base, write_recipe
from etude.plan import Plan, make_plan
from etude.plan.forecast import assume_costs, evaluations_seconds, forecast
from etude.recipe.load import load_recipe
from etude.records.store import Run
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_pairs, write_qwen2, write_t5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("draft") / "qwen2")


def drafted(folder: Path, base: Path, rows: int) -> tuple[str, Plan]:
    out = folder / "recipe.toml"
    write_recipe(write_instructions(folder / "rows.jsonl", rows), str(base), out)
    return out.read_text(), make_plan(load_recipe(out))


@pytest.mark.parametrize("rows", [5, 8, 30, 100])
def test_each_comment_is_true_of_the_plan(rows: int, base: Path, tmp_path: Path) -> None:
    text, plan = drafted(tmp_path, base, rows)
    (steps,) = re.findall(r"^epochs = .*# of (\d+) steps? each$", text, re.MULTILINE)
    assert int(steps) == plan.steps_per_epoch
    train = plan.corpus.summary["train"]
    count = len(plan.train)
    fits = f"# all {count} training rows fit\n" if count > 1 else "# the only training row fits\n"
    assert fits in text and not train["truncated"] and not train["cut_away"]
    (often,) = re.findall(r"^every_steps = \d+ +# (.*)$", text, re.MULTILINE)
    every = {
        "before training and at its end": plan.steps,
        "each epoch": plan.steps_per_epoch,
        "half an epoch": plan.steps_per_epoch / 2,
        "about half an epoch": plan.steps_per_epoch // 2,
    }
    assert plan.recipe.evaluate.every_steps == every[often]
    said = forecast(plan, assume_costs(plan, 1.0, 0))
    evaluations = evaluations_seconds(plan, assume_costs(plan, 1.0, 0))
    assert evaluations <= 0.2 * said.seconds and plan.recipe.evaluate.answers > 0
    assert (plan.recipe.records.log_every_steps == 1) == (plan.steps < 100)


def test_rows_that_do_not_fit_are_counted(base: Path, tmp_path: Path) -> None:
    rows = write_instructions(tmp_path / "rows.jsonl", 300)
    lines = rows.read_text().splitlines()
    lines[7] = lines[7].replace('"output": "', '"output": "' + "word " * 900)
    rows.write_text("\n".join(lines) + "\n")
    write_recipe(rows, str(base), tmp_path / "recipe.toml")
    (fit, of) = re.findall(
        r"# (\d+) of (\d+) training rows fit; lon", (tmp_path / "recipe.toml").read_text()
    )[0]
    train = make_plan(load_recipe(tmp_path / "recipe.toml")).corpus.summary["train"]
    assert (int(of), int(of) - int(fit)) == (train["samples"], train["truncated"]) == (285, 1)


def test_evaluations_of_a_seq2seq_recipe_take_a_fifth_of_its_time(tmp_path: Path) -> None:
    rows, base = write_pairs(tmp_path / "rows.jsonl", 600), write_t5(tmp_path / "base")
    write_recipe(rows, str(base), tmp_path / "recipe.toml")
    plan = make_plan(load_recipe(tmp_path / "recipe.toml"))
    costs = assume_costs(plan, 1.0, 0)
    assert evaluations_seconds(plan, costs) <= 0.2 * forecast(plan, costs).seconds
    assert plan.recipe.evaluate.answers == 30 == len(plan.corpus.validation or ())
    assert plan.recipe.train.target_len == 64 and plan.recipe.evaluate.answer_tokens == 64


def test_a_recipe_for_five_rows_trains_to_its_end_and_a_run_can_be_trained_on(
    base: Path, tmp_path: Path
) -> None:
    drafted(tmp_path, base, 5)
    recipe = load_recipe(tmp_path / "recipe.toml")
    whole = recipe.model_copy(update={"adapter": None, "name": "first"})
    run = run_recipe(whole, Options(runs=tmp_path / "runs")).run
    assert [step.step for step in read_history(run).steps] == list(range(1, 11)) and run.state == "finished"
    for number, given in enumerate(["first", "first@last", str(newest(run))]):
        out = tmp_path / f"again{number}.toml"
        written = dict(
            write_recipe(tmp_path / "rows.jsonl", find_base(given, out, tmp_path / "runs"), out).rows
        )
        again = load_recipe(out)
        assert again.name == "first-rows" and str(again.model.from_).startswith(str(run.checkpoints))
        assert written["model"].endswith(" parameters") and written["next"] == f"etude check {out} --deep"


def newest(run: Run) -> Path:
    return max(run.checkpoints.glob("step-*"))
