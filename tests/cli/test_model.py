"""The commands that use a model, on the command line."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Etude = Callable[..., Outcome]
Write = Callable[..., Path]


def test_an_export_lists_the_files_that_it_wrote(write_recipe: Write, tmp_path: Path, etude: Etude) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    rows = json.loads(etude("export", "tiny", out, "--to", "hf", "--runs", runs, "--json").out)
    assert rows == {"folder": str(out), "files": {path.name: path.stat().st_size for path in out.iterdir()}}
    assert rows["files"].keys() >= {"config.json", "README.md"}


def test_generate_writes_as_many_tokens_as_are_asked_for(
    write_recipe: Write, tmp_path: Path, etude: Etude
) -> None:
    runs = tmp_path / "runs"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    words = ("generate", "tiny", "--prompt", "def ", "--temperature", 0, "--max-tokens", 3, "--runs", runs)
    (text,) = json.loads(etude(*words, "--json").out)
    assert text["prompt"] == "def " and text["tokens"] <= 3
    assert etude(*words).out == f"def {text['text']}\n"


def test_a_prompt_of_a_dash_is_what_stdin_has(
    write_recipe: Write, tmp_path: Path, etude: Etude, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("def total(a):\n"))
    words = ("generate", "tiny", "--temperature", 0, "--max-tokens", 3, "--runs", runs, "--json")
    (text,) = json.loads(etude(*words, "--prompt", "-").out)
    assert text["prompt"] == "def total(a):\n"
    assert json.loads(etude(*words, "--prompt", "def total(a):\n").out) == [text]
    assert "stdin can be read once only" in etude(*words, "--prompt", "-", "--prompt", "-").err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("export", "r", "out", "--to", "int3"),
            "'int3' is not one of 'peft', 'merged', 'hf', 'int8', 'int4', 'gguf', 'onnx'",
        ),
        (("ensemble", "r", "s", "--by", "x"), "'x' is not one of 'mean', 'vote', 'consensus'"),
    ],
)
def test_a_way_is_one_of_those_that_the_help_names(words: tuple[str, ...], says: str, etude: Etude) -> None:
    outcome = etude(*words)
    assert outcome.code == 2 and says in outcome.err
    assert all(way.strip("'") in etude(words[0], "--help").out for way in says.split(" of ")[1].split(", "))


def test_options_of_fewer_bits_belong_to_them(etude: Etude, tmp_path: Path) -> None:
    for option, value in (("--group", "32"), ("--max-loss", "0.1"), ("--method", "gptq")):
        outcome = etude("export", "run", tmp_path / "out", "--to", "hf", option, value)
        assert outcome.code == 2 and f"{option} is for --to int8 and --to int4" in outcome.err
    outcome = etude("export", "run", tmp_path / "out", "--to", "gguf", "--group", "32")
    assert outcome.code == 2 and "--group is for --to int8 and --to int4, not for --to gguf" in outcome.err
    outcome = etude("export", "run", tmp_path / "out", "--to", "int8", "--type", "q8_0")
    assert outcome.code == 2 and "--type is for --to gguf, not for --to int8" in outcome.err


def test_a_quantised_export_tells_what_it_costs_and_is_generated_with(
    write_recipe: Write, tmp_path: Path, etude: Etude
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    assert etude("train", write_recipe({"train.steps": 2}), "--runs", runs).code == 0
    words = (
        "export",
        "tiny",
        out,
        "--to",
        "int4",
        "--max-loss",
        0.5,
        "--group",
        32,
        "--runs",
        runs,
        "--json",
    )
    told = json.loads(etude(*words).out)
    assert told["quantized"]["bits"] == 4 and told["quantized"]["figures"]["loss"]["difference"]
    assert etude("generate", out, "--prompt", "def ", "--max-tokens", 3, "--json").code == 0
