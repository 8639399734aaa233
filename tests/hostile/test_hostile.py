"""Every bad input is answered in one line of at most 300 characters, with exit code 2, nothing written,
within 10 s and 1 GB. `make test-hostile` runs all; `make test` those that are quick.

A module of this folder with a list CASES is a part of the corpus. A server imports etude once and forks for
each case.
"""

import hashlib
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.hostile
from tests.forking import Answer, Server
from tests.hostile.case import Case
from tests.hostile.numbered import NUMBERED

MODULES = [name for _, name, _ in pkgutil.iter_modules(tests.hostile.__path__) if name.startswith("bad_")]
CASES: list[Case] = [
    case for name in MODULES for case in importlib.import_module(f"tests.hostile.{name}").CASES
]
MOST_SECONDS, MOST_BYTES, MOST_CHARACTERS = 10, 1 << 30, 300


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_input_is_answered_in_one_line(
    case: Case, server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not case.quick and not request.config.getoption("--hostile"):
        pytest.skip("slow; make test-hostile runs it")
    folder = tmp_path / "here"
    folder.mkdir()
    words = case.make(folder)
    before = content(folder)
    environment = {"ETUDE_CACHE": str(tmp_path / "cache")} | case.environment
    answer = server.run(folder, words, seconds=MOST_SECONDS, environment=environment)
    assert_answered(answer, case.says)
    assert content(folder) == before
    assert not unfinished(tmp_path / "cache")


def test_each_numbered_input_is_tried() -> None:
    assert list(NUMBERED) == list(range(1, 81))
    cases, root = {case.name for case in CASES}, Path(__file__).parents[2]
    for number, name in NUMBERED.items():
        file, _, test = name.partition("::")
        is_tried = f"def {test}(" in (root / file).read_text() if test else (root / name).is_file()
        assert name in cases or is_tried, (number, name)


@pytest.mark.parametrize("way", ["self", "child"])
def test_memory_is_measured_of_a_command_and_of_its_children(
    way: str, server: Server, tmp_path: Path
) -> None:
    wanted = 300 << 20
    code = {
        "self": f"x = bytearray({wanted})",
        "child": f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray({wanted})'])",
    }[way]
    answer = server.run(tmp_path, ["--version"], seconds=10, first=code)
    assert answer.code == 0, answer
    assert wanted < answer.bytes < wanted + (200 << 20)
    assert server.run(tmp_path, ["--version"], seconds=10).bytes < 200 << 20


def assert_answered(answer: Answer, says: str) -> None:
    assert answer.code == 2, answer
    lines = answer.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == lines[-1], answer.err
    assert re.search(says, errors[0]), errors[0]
    assert len(errors[0]) <= MOST_CHARACTERS, len(errors[0])
    assert "Traceback" not in answer.err + answer.out
    assert all(character.isprintable() for character in errors[0])
    assert answer.bytes < MOST_BYTES, answer.bytes


def unfinished(cache: Path) -> list[Path]:
    """What a kill or an error left behind that is neither whole nor a plain file."""
    return [path for path in cache.rglob("*") if path.suffix in (".tmp", ".lock", ".new")]


def content(folder: Path) -> dict[str, str]:
    """What stands in a folder: the hash of each plain file below 1 GB, the kind of all else."""
    found = {}
    for path in sorted(folder.rglob("*")):
        is_plain = path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 30
        name = str(path.relative_to(folder)).encode(errors="surrogateescape").hex()
        if is_plain:
            with path.open("rb") as file:  # the start of a huge one says enough
                found[name] = f"{path.stat().st_size} {hashlib.sha256(file.read(1 << 24)).hexdigest()}"
        else:
            found[name] = oct(path.lstat().st_mode)
    return found
