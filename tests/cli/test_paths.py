"""Paths that no file can have, in every place of the command line that takes one."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.main import app, data_app
from tests.conftest import Outcome

Etude = Callable[..., Outcome]
ODD = {"long": "x" * 5000, "deep": "y/" * 3000, "NUL": "a\0b", "empty": "", "wide": "é" * 128}
PLACES = """
train {} | train r.toml --runs {} | train r.toml --from {} | resume {} | resume x --runs {} | check {} | prepare {}
data {} | data page {} | data page r.toml --out {} | data show {} | demo --runs {} | init --data {} --model m
init --data r.toml --model {} | init --data r.toml --model m --out {} | import {} | import m {} | export {} o --to hf
export x {} --to hf | export x o --to hf --runs {} | generate {} --prompt x | generate x --prompt x --runs {} | chat {}
chat x --runs {} | runs --runs {} | show {} | show x --runs {} | compare {} b | compare a {} | compare a b --runs {}
ensemble {} b | ensemble a b --out {} | ensemble a b --runs {} | rate {} --rater x | rate x --rater x --runs {}
note {} t --section next | note x t --section next --runs {} | report {} | report x --runs {}
check r.toml data.train.0.path={} | check r.toml tokenizer.from={} | check r.toml data.train.0.glob={}
check r.toml model.from={} | check r.toml data.leakage.benchmarks=["{}"]
"""


@pytest.mark.parametrize(
    "place", [place.strip() for line in PLACES.strip().splitlines() for place in line.split("|")]
)
def test_a_path_that_cannot_be_is_one_line(
    place: str,
    etude: Etude,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe().rename("r.toml")
    before = sorted(tmp_path.rglob("*"))
    for name, odd in ODD.items():
        done = etude(*[word.format(odd) for word in place.split()])
        assert done.code == 2 and not done.out, (name, done)
        (line,) = done.err.splitlines()[-1:]
        assert line.startswith("error: ") and len(line) <= 300 and "Traceback" not in done.err, (
            name,
            done.err,
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_every_path_of_a_command_is_checked() -> None:
    for command in [*app.registered_commands, *data_app.registered_commands]:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            text = str(parameter.annotation)
            if "pathlib" in text or name in ("run", "model"):
                (info,) = parameter.annotation.__metadata__
                assert info.parser is not None, (command.callback.__name__, name)


@pytest.mark.parametrize(
    "words", ["show x --runs file", "train r.toml --runs file", "data page r.toml --out ."]
)
def test_a_file_is_no_folder_and_a_folder_no_file(
    words: str,
    etude: Etude,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe().rename("r.toml")
    Path("file").write_text("x")
    done = etude(*words.split())
    assert done.code == 2 and "folder" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("given", ["@", "x@", "@best", "a@b@c", "@@", "x@step-²", "x@step-" + "9" * 5000])
def test_a_checkpoint_with_an_odd_name_is_one_line(given: str, etude: Etude, tmp_path: Path) -> None:
    for words in (["generate", given, "--prompt", "x"], ["export", given, tmp_path / "o", "--to", "hf"]):
        done = etude(*words, "--runs", tmp_path / "runs")
        assert done.code == 2 and done.err.startswith("error: ") and len(done.err.splitlines()) == 1, done
