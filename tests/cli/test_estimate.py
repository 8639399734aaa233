"""`etude estimate` answers people in a table, machines in JSON, and wrong input in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.estimate import parse_size
from etude.errors import InputError
from tests.conftest import Outcome

RECIPE = """
name = "x"
model.from = "Qwen/Qwen2.5-Coder-7B"
adapter.rank = 8
optim.learning_rate = 2e-4
data.train = [{ path = "/nowhere/rows.jsonl" }]
train = { epochs = 3, seq_len = 512, global_batch_size = 16, micro_batch_size = 4 }
"""
Etude = Callable[..., Outcome]
Write = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return file


def test_sizes_have_units() -> None:
    assert (
        parse_size("40GB") == 40 * 10**9
        and parse_size("24 GiB") == 24 * 2**30
        and parse_size("1.5gb") == 15 * 10**8
    )
    for text in ("40XB", "40", "GB", "-1GB", "0GB", "1e9GB"):
        with pytest.raises(InputError, match="expected a number and a unit"):
            parse_size(text)


def test_a_model_that_is_not_here_is_estimated_by_its_name(path: Path, etude: Etude) -> None:
    words = ("estimate", path, "--rows", 1000, "--gpu", "h100", "--price-per-hour", 2)
    shown = etude(*words)
    assert shown.code == 0 and "trainable 5,046,272 of 7,620,662,784" in shown.out
    values = json.loads(etude(*words, "--json").out)
    assert values["parameters"]["total"] - values["trainable"] == 7_615_616_512
    assert values["tokens_per_step"] == 16 * 512 and values["steps"] == 3 * 63
    assert values["cost"] == pytest.approx(2 * values["forecast"]["seconds"] / 3600)
    assert values["assumed"] and values["gpu"] == "NVIDIA H100 SXM" and not values["disagreements"]


def test_stated_figures_that_disagree_are_named(path: Path, etude: Etude) -> None:
    shown = etude(
        "estimate", path, "stated.parameters=6000000000", "stated.steps=100", "--rows", 1000, "--quick"
    )
    assert "stated.steps is 100, but batches, epochs and data give 189" in shown.out, shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "h1000"), "did you mean h100"),
        (("--price-per-hour", "-1"), "expected a number from 1e-06 to below 1e+09"),
        (("--price-per-hour", "nan"), "expected a number from 1e-06"),
        (("--tokens-per-second", "0"), "expected a number from 0.001 to below 1e+15"),
        (("--tokens-per-second", "1e-300"), "expected a number from 0.001"),
        (("--rows", "0"), "--rows"),
        (("--rows", "1000000000000000"), "--rows"),
        (("--memory", "４０GB"), "expected a number and a unit"),
        (("--steps", "5"), "of a recipe set train.steps=N"),
        ((), "give --rows N"),
        (("--from", "some"), "leave one out"),
    ],
)
def test_wrong_input_is_one_line(path: Path, etude: Etude, words: tuple[str, ...], said: str) -> None:
    shown = etude("estimate", path, *words)
    assert shown.code == 2 and said in shown.err and len(shown.err.splitlines()) == 1, shown.err


def test_runs_are_projected_and_graded(write_recipe: Write, tmp_path: Path, etude: Etude) -> None:
    runs = tmp_path / "runs"
    assert etude("estimate", "--history", runs).code == 2
    assert etude("train", write_recipe(), "--runs", runs).code == 0
    (run,) = runs.glob("tiny-*")
    made = json.loads(etude("estimate", "--from", run.name, "--runs", runs, "--steps", 24, "--json").out)
    assert made["steps"] == 24 and made["measured_steps"] == 12
    _, grade = json.loads(etude("estimate", "--history", runs, "--json").out)
    assert grade["run"] == run.name and set(grade["errors"]) == {"seconds", "memory_bytes", "disk_bytes"}
    assert run.name in etude("estimate", "--history", runs).out
    priced = etude("estimate", "--from", run.name, "--runs", runs, "--price-per-hour", "2")
    assert "at 2 for an hour of one device" in priced.out
    assert "--from does not take --gpu;" in etude("estimate", "--from", run.name, "--gpu", "h100").err
    assert "does not take --rows;" in etude("estimate", "--history", runs, "--rows", "3").err
    assert etude("estimate").code == 2 and etude("estimate", "--from", "none", "--runs", runs).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", 5000], "less than or equal to 4096"),
        (["--gpu", "h100", "--network", 900], "expected 0.1 to 800"),
        (["--network", 400], "are for machines with GPUs; give --gpu h100"),
        (["--gpu", "h100", "--devices", 7], "7 devices do not share evenly; try 21"),
        (["--gpu", "h100", "--devices", 4, "--rows", 2], "train.devices is 4, but there are 2"),
        (["--devices", 1, "train.parallel=shard"], "but the run has one rank"),
    ],
)
def test_what_no_cluster_is_is_refused_in_a_line(
    path: Path, etude: Etude, words: list[object], said: str
) -> None:
    shown = etude("estimate", path, *words)
    assert shown.code == 2 and said in shown.err


def test_a_network_and_machines_are_taken_as_given(path: Path, etude: Etude) -> None:
    words = ("estimate", path, "train.micro_batch_size=1", "--rows", 1000, "--gpu", "h100", "--devices", 16)
    shown = etude(*words, "--per-machine", 4, "--network", 100)
    assert "a network of 100 Gb/s a GPU (as given), 4 GPUs a machine: 50 GB/s in a ring" in shown.out
