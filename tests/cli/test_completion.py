"""Completion as a shell asks for it: by the environment, and by bash itself."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.recipe.keys import recipe_keys
from tests.conftest import Outcome

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(etude: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The completions that bash gets for words of which the last is completed."""
    runs = tmp_path / "runs"
    for name in ("demo-1a2b3c", "demo-4d5e6f", "memory-0b2dd1"):
        for step in ("step-000010", "step-000020"):
            (runs / name / "checkpoints" / step).mkdir(parents=True)
        (runs / name / "run.json").write_text("not even JSON")
    (runs / "notes").mkdir()
    monkeypatch.chdir(tmp_path)

    def complete(*words: str, shell: str = "bash") -> list[str]:
        monkeypatch.delenv("_ETUDE_COMPLETE_HEAD", raising=False)
        monkeypatch.setenv("_ETUDE_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["etude", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["etude", *words]))
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        return [line.split("\t")[0] for line in etude().out.splitlines() if line]

    return complete


def test_runs_are_completed_by_their_folders(ask: Ask) -> None:
    assert ask("show", "de") == ["demo-1a2b3c", "demo-4d5e6f"]
    assert ask("compare", "demo-1a2b3c", "m") == ["memory-0b2dd1"]
    assert ask("show", "no") == []
    assert ask("show", "--runs", "elsewhere", "de") == []


_ODD = ("$(id)", "\\$(id)", "de`id`", 'de"mo', "de'mo", "de\nid", "de mo", "--id", "de;id", "de\x1b")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_name_that_a_shell_would_read_otherwise_is_not_offered(
    shell: str, ask: Ask, tmp_path: Path
) -> None:
    words = (["show", ""], ["show", "de"], ["show", "$"], ["export", "memory-0b2dd1@"])
    plain = [ask(*each, shell=shell) for each in words]
    for name in _ODD:
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").touch()
    (tmp_path / "runs" / "memory-0b2dd1" / "checkpoints" / "step-$(id)").mkdir()
    assert [ask(*each, shell=shell) for each in words] == plain and any(plain)


def test_checkpoints_follow_the_name_of_a_run(ask: Ask) -> None:
    assert ask("export", "mem") == ["memory-0b2dd1"]
    # bash parts words at @, and replaces the last part with its @.
    assert ask("export", "memory-0b2dd1", "@") == ["@best", "@last", "@step-000010", "@step-000020"]
    assert ask("export", "memory-0b2dd1", "@", "st") == ["@step-000010", "@step-000020"]
    assert ask("export", "memory-0b2dd1@b", shell="fish") == ["memory-0b2dd1@best"]
    assert ask("export", "../../etc", "@", "") == []


def test_keys_of_a_recipe_are_completed_and_then_their_values(ask: Ask) -> None:
    assert ask("train", "recipe.toml", "") == list(recipe_keys())
    assert ask("check", "recipe.toml", "optim.beta") == ["optim.beta1", "optim.beta2"]
    assert ask("train", "recipe.toml", "optim.kind", "=") == ["adamw", "adam", "muon"]
    assert ask("train", "recipe.toml", "optim.kind", "=", "m") == ["muon"]
    assert ask("train", "recipe.toml", "optim.kind", "=", "m", "optim.l")[0] == "optim.learning_rate="
    assert ask("train", "recipe.toml", "optim.kind=m", shell="fish") == ["optim.kind=muon"]
    assert ask("train", "recipe.toml", "optim.nothing", "=", "") == []


def test_what_is_one_of_a_few_words_is_completed(ask: Ask) -> None:
    assert ask("export", "r", "out", "--to", "") == ["peft", "merged", "hf", "int8", "int4", "gguf", "onnx"]
    assert ask("export", "r", "out", "--to", "=", "p") == ["peft"]
    assert ask("train", "recipe.toml", "--from", "memory-0b2dd1", "@", "l") == ["@last"]
    assert ask("recipes", "copy", "d") == ["demo"]
    assert {"copy", "show"} == set(ask("recipes", ""))


def test_bash_completes_a_run_and_a_value(ask: Ask, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "etude"
    command.parent.mkdir()
    start = "import sys; sys.argv[0] = 'etude'; from etude.__main__ import program; program()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    command.chmod(0o755)
    script = tmp_path / "completion.sh"
    environment = {key: value for key, value in os.environ.items() if key != "_ETUDE_COMPLETE"}
    root = str(Path(__file__).parents[2])
    environment |= {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": root}
    # What `--show-completion` prints below bash; under make no such shell stands above the tests.
    asked = environment | {"_ETUDE_COMPLETE": "source_bash"}
    shown = subprocess.run(["etude"], env=asked, check=False, capture_output=True, text=True).stdout
    script.write_text(shown)
    lines = [f"source {script}"]
    for words in (("etude", "show", "mem"), ("etude", "train", "a.toml", "optim.kind", "=", "mu")):
        lines += [f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _etude_completion etude"]
        lines += ['echo "${COMPREPLY[@]}"']
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["memory-0b2dd1", "muon"], done.stderr


def test_runs_are_completed_without_what_is_slow_to_import(ask: Ask, tmp_path: Path) -> None:
    code = (
        "import sys, atexit; sys.argv = ['etude']; from etude.cli.main import main\n"
        "atexit.register(lambda: print(sorted({'torch', 'numpy', 'tokenizers', 'etude.recipe.schema'} & set(sys.modules)), file=sys.stderr))\n"
        "main()"
    )
    environment = {
        **os.environ,
        "_ETUDE_COMPLETE": "complete_bash",
        "COMP_WORDS": "etude\nshow\nde",
        "COMP_CWORD": "2",
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["demo-1a2b3c", "demo-4d5e6f"]
    assert done.stderr.strip() == "[]"
