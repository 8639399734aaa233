"""What tests share: a small corpus, a small recipe, and the command line in this process."""

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe

# The models are tiny, and several test processes with all cores each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that runs behind a shell was started to ignore Ctrl-C, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing in a test is timed: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how often the kill test kills")
    parser.addoption("--hostile", action="store_true", help="also the slow inputs of tests/hostile")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(cache))


def write_corpus(path: Path, documents: int = 60) -> Path:
    """A JSONL file of little functions, the same for the same number of documents."""
    draw = random.Random(documents)
    names = ["total", "value", "item", "left", "right", "node", "count", "index"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(documents):
            a, b, c = draw.sample(names, 3)
            body = "".join(
                f"    {a} = {a} {draw.choice('+-*')} {draw.randint(0, 99)}\n"
                for _ in range(draw.randint(1, 6))
            )
            text = f"def {b}_{number}({a}, {c}):\n{body}    return {a} {draw.choice('+-*')} {c}\n"
            file.write(json.dumps({"text": text}) + "\n")
    return path


def tiny(path: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The values of a recipe that trains in about a second."""
    values = {
        "name": "tiny",
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_ffn": 64, "qk_norm": True},
        "tokenizer": {"train_vocab_size": 300},
        "data": {"train": [{"path": str(path)}], "validation_ratio": 0.1},
        "train": {"steps": 12, "seq_len": 32, "global_batch_size": 8, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 3e-3},
        "evaluate": {"every_steps": 6},
        "checkpoint": {"every_steps": 4},
        "records": {"log_every_steps": 3},
    }
    return change(values, changes or {})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture
def make_recipe(corpus: Path) -> Callable[..., Recipe]:
    """A tiny recipe with dotted changes, as `make_recipe({"train.steps": 3})`."""

    def make(changes: dict[str, Any] | None = None) -> Recipe:
        return recipe_from(tiny(corpus, changes))

    return make


@pytest.fixture
def write_recipe(tmp_path: Path, corpus: Path) -> Callable[..., Path]:
    """A tiny recipe as a file."""

    def write(changes: dict[str, Any] | None = None, name: str = "recipe.toml") -> Path:
        import tomlkit

        path = tmp_path / name
        values = recipe_from(tiny(corpus, changes)).to_dict()
        path.write_text(tomlkit.dumps(values), encoding="utf-8")
        return path

    return write


class Outcome(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def etude(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """The command line, run in this process."""
    from etude.cli.main import main

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["etude", *map(str, words)])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        return Outcome(int(code), out, err)

    yield run
