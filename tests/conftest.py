"""What tests share: a small corpus, a small recipe, and the command line in this process."""

import fcntl
import functools
import gc
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from etude.plan import Plan, beginning, memory
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.store import Run, open_run
from tests import undrawn
from tests.alike import step_of
from tests.bases import write_corpus
from tests.recipes import tiny

# A suite that runs behind a shell was started to ignore signals, and so would the runs that tests stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Nothing in a test is timed: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

# What is loaded for the tests is kept compiled, whatever the environment says, for the processes that they start;
# from the first test on it holds again.
_writes_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how often the kill test kills")
    parser.addoption(
        "--shortages", type=int, default=6, help="steps that run out of memory, for each rank count"
    )
    parser.addoption("--hostile", action="store_true", help="also the slow inputs of tests/hostile")
    parser.addoption("--release", action="store_true", help="every attack of tests/release, for hours")
    parser.addoption("--slow", action="store_true", help="also the long form of tests that have a short one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="the long form of a test that has a short one; make test-slow runs it")
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = _writes_no_bytecode
    gc.collect()
    gc.freeze()  # what was loaded for 9,000 tests is not looked through again and again for garbage


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(cache))


@pytest.fixture(scope="session", autouse=True)
def _measured_once() -> Iterator[None]:
    """What the device can do is measured once, not for every run; steps of runs alike are traced once, and git
    is asked for the state of this repository once.
    """
    from etude import session
    from etude.records import environment

    ask, ask_once = environment._git, functools.cache(environment._git)

    memories: dict[str, memory.Memory] = {}

    def memory_of(plan: Plan, micro_batch_size: int) -> memory.Memory:
        key = step_of(plan, micro_batch_size)
        if key not in memories:
            memories[key] = memory.memory_of(plan, micro_batch_size)
        return memories[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "measure_matrix_rate", functools.cache(session.measure_matrix_rate))
        patch.setattr(beginning, "memory_of", memory_of)
        patch.setattr(environment, "_git", lambda: ask_once() if Path.cwd() == ROOT else ask())
        versions = tuple(environment._versions())
        patch.setattr(environment, "_versions", lambda: versions)
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib draws the charts of this test."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", undrawn.draw)


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


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """What a builder makes in a folder and returns, of JSON, once for a process of tests, whose cache has its data."""
    shared = tmp_path_factory.getbasetemp()

    def make(name: str, build: Callable[[Path], Any]) -> Any:
        folder = shared / f"made-{name}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "made.json").exists():
                (folder / "made.json").write_text(json.dumps(build(folder)))
            return json.loads((folder / "made.json").read_text())

    return make


@pytest.fixture
def misleading(
    make_once: Callable[..., Any], tmp_path: Path
) -> Callable[[Callable[[Path], Run | list[Run]]], Any]:
    """What a builder of `tests.misleading` trains, once for all tests; each has a copy of its own."""

    def paths_of(made: Run | list[Run]) -> str | list[str]:
        return [str(run.path) for run in made] if isinstance(made, list) else str(made.path)

    def get(build: Callable[[Path], Run | list[Run]]) -> Any:
        made = make_once(build.__name__, lambda folder: paths_of(build(folder)))
        copy = tmp_path / f"{build.__name__}-runs"

        def copied(path: str) -> Run:
            shutil.copytree(path, copy / Path(path).name, dirs_exist_ok=True)
            return open_run(Path(path).name, copy)

        return [copied(path) for path in made] if isinstance(made, list) else copied(made)

    return get


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
