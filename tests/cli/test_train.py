"""The commands that check a recipe and train it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Etude = Callable[..., Outcome]
Write = Callable[..., Path]


def test_the_command_of_a_finished_run_tells_its_outcome_and_trains_when_asked_or_on_other_data(
    tmp_path: Path, corpus: Path, write_recipe: Write, etude: Etude
) -> None:
    recipe, runs = write_recipe({"train.steps": 2}), tmp_path / "runs"
    command = ("train", recipe, "--runs", runs)
    assert etude(*command).code == 0
    (run,) = runs.glob("tiny-*")
    again = etude(*command)
    assert again.code == 0 and list(runs.glob("tiny-*")) == [run]
    first, *outcome = again.err.splitlines()
    assert first == f"{run} has trained this recipe on this data to its end; --new trains it again"
    assert any(line.startswith("Finished 2 steps") for line in outcome) and outcome[-3].startswith("next ")
    for count, words in ((2, ["--new"]), (3, ["optim.learning_rate=0.1"])):
        assert etude(*command, *words).code == 0
        assert len(list(runs.glob("tiny-*"))) == count
    corpus.write_text(corpus.read_text() + corpus.read_text().splitlines()[0].replace("def", "class") + "\n")
    assert etude(*command).code == 0
    assert len(list(runs.glob("tiny-*"))) == 4


def test_check_prints_every_value_and_deep_also_the_plan(write_recipe: Write, etude: Etude) -> None:
    recipe = write_recipe(
        {"model": {"from": "Qwen/Qwen2.5-Coder-0.5B"}, "tokenizer": {}, "adapter": {"rank": 8}}
    )
    plain = etude("check", recipe)
    assert (plain.code, "optim.learning_rate" in plain.out) == (0, True)
    assert '["q_proj", "k_proj", "v_proj", "o_proj"]' in plain.out and "True" not in plain.out
    assert "is a valid recipe; --deep also looks at data and device" in plain.err
    assert "Qwen/Qwen2.5-Coder-0.5B: " in plain.err and "of 495,114,112" in plain.err  # without its files
    deep = json.loads(etude("check", write_recipe(), "--deep", "--json").out)
    assert deep["steps"] == 12 and deep["parameters"]["total"] > 0 and deep["notes"] == []


def test_the_schema_knows_every_section() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etude", "schema"], capture_output=True, text=True, check=True
    )
    assert {"name", "model", "tokenizer", "data", "train", "optim"} <= set(
        json.loads(done.stdout)["properties"]
    )
