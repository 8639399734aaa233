"""A second version of a recipe: what was found, as changes with their reasons, and whether it helps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.improve import find_all, improve, next_name
from etude.recipe.load import flatten, load_recipe, recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run, hold_run
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options

FAST = Finding(
    8, "the loss *jumps*", "9.1 where 2.0 was usual", "a calmer start", severity="error", window=[7, 8],
    causes=["the rate"], changes={"optim.learning_rate": 1e-3, "schedule.warmup_steps": 4, "data.skip_steps": 3},
    kind="jumps", confidence=0.75, decided_by="the norm", source="a paper",
)  # fmt: skip
LATE = Finding(
    10, "it rests", "flat", "more", changes={"optim.learning_rate": 9e-3, "train.steps": 6}, kind="rests"
)


def trained(recipe: Recipe, runs: Path, *findings: Finding, text: str | None = None) -> Run:
    run = run_recipe(recipe, Options(runs=runs, recipe_text=text)).run
    writer = hold_run(run)
    writer.append(*findings)
    writer.close("finished")
    return run


def test_the_second_version_has_the_changes_of_the_worst_finding_and_says_why(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_recipe()
    text = "# mine\n" + path.read_text()
    run = trained(load_recipe(path, ["optim.beta2=0.9"]), tmp_path / "runs", LATE, FAST, text=text)
    better = improve(run)
    assert list(better.taken) == ["optim.learning_rate", "schedule.warmup_steps", "train.steps"]
    second = tmp_path / "second.toml"
    second.write_text(better.text)
    before, after = flatten(run.recipe.to_dict()), flatten(load_recipe(second).to_dict())
    changed = {key: after.get(key) for key in before | after if before.get(key) != after.get(key)}
    filled_in = {
        key
        for key in changed
        if key.startswith("model.")
        or key
        in (
            "records.log_every_steps",
            "optim.weight_decay",
            "train.micro_batch_size",
            "tokenizer.train_vocab_size",
        )
    }
    assert {key: value for key, value in changed.items() if key not in filled_in} == {
        "name": "tiny-v2", "records.parent": run.name, "optim.learning_rate": 1e-3, "schedule.warmup_steps": 4,
        "train.steps": 6,
    }  # fmt: skip
    assert "# mine" in better.text and "# was 0.003: the loss *jumps*, steps 7 to 8" in better.text


def test_the_strategy_has_the_evidence_the_changes_and_the_times(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    criteria = [{"figure": "gap", "below": 0.5}]
    run = trained(make_recipe({"criteria": criteria}), tmp_path, FAST)
    strategy = improve(run).strategy
    assert (
        "**the loss \\*jumps\\*** (steps 7 to 8): 9.1 where 2.0 was usual. Likely cause (75 % sure; shown by the "
        "norm): the rate. To do: a calmer start." in strategy
    )
    assert "| `optim.learning_rate` | `0.003` | `0.001` | smaller updates: " in strategy
    assert "| `schedule.warmup_steps` | `0` | `4` | the first updates are small, " in strategy
    headings = [line for line in strategy.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {each}"
        for each in ("Problem", "Changes", "Timeline", "Good signs", "Bad signs", "Success", "Next steps")
    ]
    assert f"`etude compare {run.name} tiny-v2`" in strategy and "| in all | 12 |" in strategy
    assert "- gap below 0.5\n" in strategy.partition("## Success")[2]


OVER = Finding(
    12, "validation rises", "2 and 3", "stop", window=[8, 12], changes={"train.epochs": 1}, kind="overfitting"
)


def test_fewer_epochs_become_fewer_steps_where_the_recipe_counts_steps(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    warm = make_recipe({"schedule.warmup_steps": 9})
    better = improve(trained(warm, tmp_path / "a", OVER))
    assert (better.recipe.train.steps, better.recipe.train.epochs) == (8, None)
    assert better.recipe.schedule.warmup_steps == 0  # 9 are not fewer than 8
    values = make_recipe().to_dict()
    del values["train"]["steps"]
    values["train"]["epochs"] = 3
    better = improve(trained(recipe_from(values), tmp_path / "b", OVER))
    assert (better.recipe.train.steps, better.recipe.train.epochs) == (None, 1)


def test_beside_a_fault_of_the_start_only_what_a_test_decided_is_changed(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    first = Finding(
        0,
        "too much",
        "40 %",
        "less",
        changes={"optim.weight_decay": 0.1},
        kind="much",
        decided_by="arithmetic",
    )
    sure = Finding(
        5, "copies", "half", "drop", changes={"data.deduplicate": "exact"}, kind="copies", decided_by="hashes"
    )
    run = trained(make_recipe({"optim.weight_decay": 3.0}), tmp_path, LATE, first, sure)
    assert list(improve(run).taken) == ["optim.weight_decay", "data.deduplicate"]


def test_a_run_without_a_change_to_make_is_told_so(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no finding that names a change of its recipe; it found nothing"):
        improve(trained(make_recipe(), tmp_path / "a"))
    odd = Finding(3, "odd rows", "5 of 6", "look at them", kind="odd")
    with pytest.raises(InputError, match="needs more than another recipe: odd rows: look at them"):
        improve(trained(make_recipe(), tmp_path / "b", odd))
    wrong = Finding(3, "odd", "x", "y", kind="odd", changes={"optim.speed": 3, "optim.learning_rate": "fast"})
    with pytest.raises(InputError, match="needs more than another recipe: odd: y"):
        improve(trained(make_recipe(), tmp_path / "c", wrong))


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.train.0.path", "/etc/passwd"), ("loss.path", "evil.py"), ("model.from", "/evil/model"), ("name", "other"),
     ("data.train", [{"path": "/etc/passwd"}]), ("records.trackers", ["wandb"])],
)  # fmt: skip
def test_a_forged_journal_changes_no_key_that_the_watch_does_not(
    key: str, value: object, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    forged = Finding(3, "odd", "x", "y", kind="odd", severity="error", changes={key: value})
    better = improve(trained(make_recipe(), tmp_path, forged, FAST))
    assert list(better.changes) == ["optim.learning_rate", "schedule.warmup_steps"]
    assert str(value) not in better.text


def test_todays_detectors_read_old_journals(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    history = read_history(trained(make_recipe({"watch.policy": "off"}), tmp_path, FAST))
    assert [each.kind for each in find_all(history) if each.severity == "error"] == ["jumps"]


def test_versions_are_counted_and_names_stay_names() -> None:
    assert [next_name(each) for each in ("run", "run-v2", "run-v9")] == ["run-v2", "run-v3", "run-v10"]
    assert len(next_name("a" * 64)) <= 64
    recipe_from(
        {
            "name": next_name("a" * 64),
            "data": {"train": [{"path": "x"}]},
            "train": {"steps": 1, "global_batch_size": 1},
            "tokenizer": {"train_vocab_size": 300},
        }
    )
