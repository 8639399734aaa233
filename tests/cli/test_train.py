"""The commands that check a recipe and train it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bases import write_encoder, write_labelled
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


def test_check_says_the_usual_learning_rate_of_a_pretrained_encoder_and_calls_it_no_decoder(
    tmp_path: Path, etude: Etude
) -> None:
    write_labelled(tmp_path / "rows.jsonl")
    base, recipe = write_encoder(tmp_path / "base"), tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "a"\n[model]\nfrom = "{base}"\n[[data.train]]\npath = "rows.jsonl"\nlabel = "label"\n'
        '[train]\nobjective = "classification"\nepochs = 1\nglobal_batch_size = 8\nseq_len = 32\n'
    )
    plain, deep = etude("check", recipe), etude("check", recipe, "--deep")
    (line,) = [line for line in plain.err.splitlines() if "learning_rate" in line]
    assert line.startswith("warning: optim.learning_rate is not set") and line.endswith("is 2e-05")
    assert "decoder" not in plain.out and f"{base}\n" in plain.out.replace('"', "")
    assert "usual for all weights of a pretrained model is 2e-05" in " ".join(deep.out.split())
    assert "learning_rate is" not in etude("check", recipe, "optim.learning_rate=1e-5").err


def test_the_schema_knows_every_section() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etude", "schema"], capture_output=True, text=True, check=True
    )
    assert {"name", "model", "tokenizer", "data", "train", "optim"} <= set(
        json.loads(done.stdout)["properties"]
    )


def test_a_restart_of_torchrun_goes_on_with_the_run_that_it_began_new(
    tmp_path: Path, write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", write_recipe({"train.steps": 2}), "--runs", tmp_path / "runs", "--new")
    for _ in range(2):
        assert etude(*command).code == 0
    assert len(list((tmp_path / "runs").glob("tiny-*"))) == 2
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")  # the parent of this process is older than both
    again = etude(*command)
    assert again.code == 0 and "has trained this recipe on this data to its end" in again.err
    assert len(list((tmp_path / "runs").glob("tiny-*"))) == 2
