"""A sweep file gives every point of its grids as a checked recipe, or every problem in one line each."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from etude.errors import InputError, RecipeError
from etude.recipe.load import load_recipe, recipe_hash
from etude.sweep.grid import count_trials, load_sweep
from tests.sweeps import Axes, sweep_values, write_sweep

PLAN = Path(__file__).parents[2] / "recipes" / "code-understanding-72.toml"
GRID: Axes = {"optim.learning_rate": [1e-3, 3e-3], "train.steps": [8, 12]}


def test_the_plan_of_72_trials_has_8_8_12_12_16_and_16() -> None:
    trials = load_sweep(PLAN).trials
    counts = Counter(trial.model for trial in trials)
    assert list(counts.values()) == [8, 8, 12, 12, 16, 16] and len({trial.name for trial in trials}) == 72
    large = [trial.recipe for trial in trials if trial.tier == "large"]
    assert {recipe.train.accumulation for recipe in large} == {2}
    assert {recipe.train.activation_checkpointing for recipe in large} == {True}
    assert Counter(recipe.optim.weight_decay for recipe in large) == {0.01: 16, 0.1: 16}
    assert {trial.recipe.train.epochs for trial in trials} == {3, 5}
    assert max(trials, key=lambda trial: trial.priority).tier == "large"


def test_a_trial_is_the_base_recipe_with_the_values_of_its_point(tmp_path: Path, corpus: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, GRID)))
    assert [trial.name for trial in sweep.trials] == [
        "net-lr0.001-steps8", "net-lr0.001-steps12", "net-lr0.003-steps8", "net-lr0.003-steps12"
    ]  # fmt: skip
    for trial in sweep.trials:
        assert trial.values == {
            "optim.learning_rate": trial.recipe.optim.learning_rate, "train.steps": trial.recipe.train.steps
        }  # fmt: skip


def test_a_base_recipe_may_be_a_file_whose_paths_begin_in_its_folder(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, GRID)
    base = tmp_path / "bases" / "base.toml"
    base.parent.mkdir()
    (base.parent / "rows.jsonl").write_bytes(corpus.read_bytes())
    recipe = {**values["recipe"], "name": "base", "data": {"train": [{"path": "rows.jsonl"}]}}
    write_sweep(base, recipe)
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "recipe": "bases/base.toml"}))
    assert sweep.trials[0].recipe.data.train[0].path == str(base.parent / "rows.jsonl")
    other = {"name": "net-lr0.001-steps8", "optim.learning_rate": 1e-3, "train.steps": 8}
    alone = load_recipe(base, [f"{key}={value}" for key, value in other.items()])
    assert recipe_hash(alone) == recipe_hash(sweep.trials[0].recipe)


def test_a_model_has_settings_and_grids_of_its_own(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, GRID)
    values["tiers"][0]["models"] = [
        {"name": "thin"},
        {
            "name": "wide",
            "settings": {"model": {"n_embd": 64}},
            "grid": [{"key": "train.steps", "values": [9]}],
        },
    ]
    trials = load_sweep(write_sweep(tmp_path / "sweep.toml", values)).trials
    wide = [trial.recipe for trial in trials if trial.model == "wide"]
    assert [(recipe.model.n_embd, recipe.train.steps) for recipe in wide] == [(64, 9), (64, 9)]
    assert len(trials) == 6


def test_batch_and_accumulation_may_be_a_grid_or_go_together(tmp_path: Path, corpus: Path) -> None:
    keys = ["train.micro_batch_size", "train.accumulation"]
    values = sweep_values(corpus, {})
    del values["recipe"]["train"]["global_batch_size"]
    values["tiers"][0]["grid"] = [{"key": keys, "values": [[8, 1], [4, 2]]}]
    trials = load_sweep(write_sweep(tmp_path / "sweep.toml", values)).trials
    sizes = [(each.recipe.train.micro_batch_size, each.recipe.train.accumulation) for each in trials]
    assert sizes == [(8, 1), (4, 2)]
    values["tiers"][0]["grid"] = [{"key": key, "values": [1, 2]} for key in keys]
    assert len(load_sweep(write_sweep(tmp_path / "sweep.toml", values)).trials) == 4


MANY = [{"key": key, "values": list(range(1, 1001))} for key in ("seed", "train.steps", "train.seq_len")]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"tiers.0.grid.0.key": "optim.lr"}, r"optim\.lr \(sweep\.toml:\d+\) is not a key of a recipe; did you mean learning_rate"),
    ({"tiers.0.grid.0.key": "optim.learning_rat"}, "did you mean learning_rate"),
    ({"tiers.0.grid.0.values": []}, r"tiers\.0\.grid\.0\.values \(sweep\.toml:\d+\) is \[\]; it needs at least 1 entry"),
    ({"tiers.0.grid.0.values": [1e-3, 1e-3]}, "holds 0.001 twice; keep one"),
    ({"tiers.0.grid.0.values": [1e-3, -1.0]}, r"optim\.learning_rate \(sweep\.toml:\d+\) is -1\.0; it must be above 0; try"),
    ({"tiers.0.grid": MANY}, "describes 1,000,000,000 trials; a sweep has at most 10,000"),
    ({"tiers.0.models": [{"name": "net"}, {"name": "net"}]}, "is net, as tiers.0.models.0 is; rename one"),
    ({"tiers.0.models": [{"name": "net"}, {"name": "other"}]}, "net-lr0.001-steps8 and other-lr0.001-steps8 would train the same recipe"),
    ({"tiers.0.grid.1.key": "optim.learning_rate"}, "two grids over optim.learning_rate"),
    ({"tiers.0.grid.1": {"key": "optim", "values": [{"learning_rate": 1.0}]}}, r"models\.0 \(sweep\.toml:\d+\) sets optim and optim\.learning_rate, which is in it"),
    ({"resources": {"memory_gb": 1e308}}, r"memory_gb \(sweep\.toml:\d+\) is 1e\+308; it must be at most 1e\+07"),
    ({"tiers.0.priority": 10**50}, "it must be at most 1,099,511,627,776"),
    ({"halving": {"steps": [4], "reduction_factor": 10**400}}, "it must be at most 1,099,511,627,776"),
    ({"budget": {"trials": 3}}, r"budget\.trials \(sweep\.toml:\d+\) is 3, but the grids have 4 trials"),
    ({"tier": 3}, r"tier \(sweep\.toml:\d+\) is not a key of a sweep; did you mean tiers"),
    ({"tiers": []}, "it needs at least 1 entry"),
    ({"tiers.0.grid.0.key": ""}, r'"" \(sweep\.toml:\d+\) is not a key of a recipe'),
    ({"tiers.0.grid.0.key": "a.b.c"}, r"a \(sweep\.toml:\d+\) is not a key of a recipe"),
    ({"tiers.0.grid.0": {"key": "name", "values": ["a", "b"]}}, r"grid\.0 \(sweep\.toml:\d+\) sets name, which a sweep gives"),
    ({"tiers.0.models.0.settings": {"name": "a"}}, r"settings\.name \(sweep\.toml:\d+\) sets name"),
    ({"recipe": "nowhere.toml"}, "nowhere.toml does not exist"),
    ({"recipe": "sweep.toml"}, "a sweep itself"),
    ({"tiers.0.models.0.settings": {"model": {"n_emb": 4}}}, r"n_emb \(sweep\.toml:\d+\) is not a key of a recipe"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), BAD, ids=[text[:40] for _, text in BAD])
def test_a_bad_sweep_is_refused_in_words_before_anything_is_made(
    tmp_path: Path, corpus: Path, changes: dict[str, Any], text: str
) -> None:
    values = sweep_values(corpus, GRID)
    with pytest.raises(InputError, match=text) as error:
        load_sweep(write_sweep(tmp_path / "sweep.toml", values, changes))
    assert all("\n" not in line for line in getattr(error.value, "problems", [str(error.value)]))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"a = [" * 3000, b"name = 'x'\nname = 'y'", b"x" * (2 << 20)]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sweep.toml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_sweep(path)


def test_values_that_make_no_name_are_named_by_a_hash(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(
        corpus, {"data.train.0.path": [str(corpus), str(corpus.with_name("other file.jsonl"))]}
    )
    names = [trial.name for trial in load_sweep(write_sweep(tmp_path / "sweep.toml", values)).trials]
    assert len(set(names)) == 2 and all(name.startswith("net-") and len(name) == 16 for name in names)


def test_a_name_tells_the_values_of_a_trial(tmp_path: Path, corpus: Path) -> None:
    grid: Axes = {"optim.learning_rate": [2e-05, 1e38], "schedule.kind": ["wsd"], "train.compile": [True]}
    names = [
        each.name for each in load_sweep(write_sweep(tmp_path / "s.toml", sweep_values(corpus, grid))).trials
    ]
    assert names == ["net-lr2e-5-wsd-compiletrue", "net-lr1e38-wsd-compiletrue"]


def test_values_that_a_name_cannot_tell_apart_are_trials_of_their_own(tmp_path: Path, corpus: Path) -> None:
    grid: Axes = {"optim.learning_rate": [1e-4, 1.0000001e-4], "data.train.0.field": ["a_b", "a-b"]}
    first, *others = [
        each.name for each in load_sweep(write_sweep(tmp_path / "s.toml", sweep_values(corpus, grid))).trials
    ]
    assert first == "net-lr0.0001-fielda-b" and len({first, *others}) == 4
    assert all(re.fullmatch(r"net-[0-9a-f]{12}", name) for name in others)
    grid["optim.learning_rate"].append(2e-4)
    more = load_sweep(write_sweep(tmp_path / "s.toml", sweep_values(corpus, grid))).trials
    assert {first, *others} < {each.name for each in more}  # those before keep their names


def test_every_problem_is_told_once(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [-1.0, 1e-3], "train.steps": [0, 4, 5]})
    with pytest.raises(RecipeError) as error:
        load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    assert len(error.value.problems) == 2


RATES = {"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2, "log": True}


def with_search(corpus: Path, ranges: list[dict[str, Any]], grid: Axes | None = None) -> dict[str, Any]:
    values = sweep_values(corpus, grid or {})
    values["tiers"][0]["search"] = ranges
    return {**values, "search": {"trials": 5}}


def test_a_model_has_a_search_at_each_point_of_its_grids(tmp_path: Path, corpus: Path) -> None:
    values = with_search(corpus, [RATES], {"train.steps": [8, 12]})
    values["tiers"][0]["models"] = [
        {"name": "net"}, {"name": "wide", "search": [{**RATES, "low": 1e-3}, {"key": "model.dropout", "values": [0.0, 0.1]}]}
    ]  # fmt: skip
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    assert not sweep.trials and count_trials(sweep.file) == 20
    names = [study.name for study in sweep.studies]
    assert names == ["net-steps8", "net-steps12", "wide-steps8", "wide-steps12"]
    assert [len(study.ranges) for study in sweep.studies] == [1, 1, 2, 2]
    assert sweep.studies[2].ranges[0].low == 1e-3
    trial = sweep.studies[1].trial(3, {"optim.learning_rate": 2e-3})
    assert (trial.recipe.train.steps, trial.recipe.optim.learning_rate) == (12, 2e-3)
    assert trial.values == {"train.steps": 12, "optim.learning_rate": 2e-3}


@pytest.mark.parametrize(
    ("ranges", "changes", "message"),
    [
        ([{"key": "optim.lr", "low": 1, "high": 2}], {}, "learning_rate"),
        ([{"key": "optim.learning_rate", "low": 1e-3}], {}, "give low and high"),
        ([{**RATES, "high": 1e-5}], {}, "low must be below high"),
        ([{**RATES, "low": float("nan")}], {}, "is nan; it must be a finite number"),
        ([{"key": "name", "values": ["a", "b"]}], {}, "sets name"),
        ([{**RATES, "low": 0.0}], {}, "a factor needs low above 0"),
        ([{**RATES, "values": [1e-3]}], {}, "give one or the other"),
        ([RATES, RATES], {}, "has two ranges over optim.learning_rate; keep one"),
        ([{**RATES, "low": -1.0, "log": False}], {}, "learning_rate"),
        ([{"key": "model.dropout", "values": [0.1, 0.1]}], {}, "holds 0.1 twice; keep one"),
        ([], {}, "has no ranges; add"),
        ([RATES], {"search": None}, "there is no [search]; add one"),
        ([RATES], {"budget": {"trials": 4}}, "the grids and searches have 5 trials"),
        ([RATES], {"search": {"trials": 0}}, "trials"),
        ([RATES], {"search": {"trials": 3, "pruner": "asha"}}, "pruner"),
        ([RATES], {"recipe.data.validation": "none", "recipe.data.validation_ratio": None}, "search needs validation rows"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(
    tmp_path: Path, corpus: Path, ranges: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    values = with_search(corpus, ranges)
    for dotted, value in changes.items():
        *folders, last = dotted.split(".")
        place = values
        for name in folders:
            place = place[name]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    with pytest.raises(InputError) as raised:
        load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    assert message in str(raised.value)


def test_a_key_is_in_a_grid_or_a_range(tmp_path: Path, corpus: Path) -> None:
    values = with_search(corpus, [RATES], {"optim.learning_rate": [1e-3]})
    with pytest.raises(InputError, match="has a grid and a range over"):
        load_sweep(write_sweep(tmp_path / "sweep.toml", values))
