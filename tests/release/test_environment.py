"""Whatever machine a run meets, it gives the same bits, and its records can be read there: locales, time zones,
clocks that jump, masks of files, homes that nobody may write to, odd names of folders, few open files.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.forking import Answer, Server
from tests.release.runs import Bits, require_whole, whole_bits, write_run

_SECONDS = 600.0
_FEW = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"


@dataclass(frozen=True)
class Machine:
    """Surroundings of a run.

    environment  variables; python: options of an interpreter of its own
    first        code that is run before the command
    folder       of the recipe and the runs, in a folder of the test; linked: it is a link to another one
    refused      what the one line says where there can be no run
    """

    environment: dict[str, str] = field(default_factory=dict)
    python: tuple[str, ...] | None = None
    first: str = ""
    folder: str = "here"
    linked: bool = False
    refused: str = ""


def locale(name: str) -> Machine:
    values = {"LC_ALL": name, "LANG": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return Machine(values, python=())


MACHINES = {
    **{f"locale {name}": locale(name) for name in ("C", "POSIX", "de_DE.UTF-8", "tr_TR.UTF-8", "en_US.ISO-8859-1")},
    **{f"time zone {zone}": Machine({"TZ": zone}, python=()) for zone in ("Pacific/Kiritimati", "Etc/GMT+12", ":no/such")},
    "clock a day back": Machine(first="from tests.release.armed import jump; jump(-86_400)"),
    "clock a year ahead": Machine(first="from tests.release.armed import jump; jump(365 * 86_400)"),
    "umask 077": Machine(first="import os; os.umask(0o077)"),
    "umask 000": Machine(first="import os; os.umask(0)"),
    "home that cannot be written": Machine({"HOME": "/proc"}),
    "home that is missing": Machine({"HOME": "/no/such/home"}),
    "no room for a cache": Machine({"HOME": "/proc", "ETUDE_CACHE": ""}, refused="ETUDE_CACHE|/proc"),
    "no locks": Machine(first="from tests.release.armed import unlock; unlock()", refused="cannot be locked: .* another disk"),
    "name with a blank": Machine(folder="with a blank"),
    "name with a line end": Machine(folder="line\nend"),
    "name with a snake": Machine(folder="snake \U0001f40d é"),
    "name that is no UTF-8": Machine(folder="latin-\udce9", refused="a name that is not UTF-8"),
    "name of 200 letters": Machine(folder="n" * 200),
    "name with quotes": Machine(folder="a'b\"c$(d)%s{e}"),
    "name with brackets": Machine(folder="[a]*?"),
    "link to a folder": Machine(linked=True),
    "64 open files": Machine(first=_FEW),
    "encodings that are named": Machine({"PYTHONWARNDEFAULTENCODING": "1"}, ("-W", "error::EncodingWarning")),
    "no asserts and no docstrings": Machine(python=("-OO",)),
    "other hashes": Machine({"PYTHONHASHSEED": "4711"}, ()),
    "no terminal at all": Machine({"TERM": "", "COLUMNS": "1", "LINES": "1"}),
}  # fmt: skip
QUICK = ("clock a day back", "umask 077", "name with a line end", "64 open files")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("tests.release.armed") as server:
        yield server


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bits:
    folder = tmp_path_factory.mktemp("whole")
    return whole_bits(write_run(folder), folder / "runs")


@pytest.mark.parametrize("name", MACHINES)
def test_a_run_is_the_same_on_any_machine(
    name: str, server: Server, whole: Bits, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name not in QUICK and not request.config.getoption("--release"):
        pytest.skip("make release-check tries it")
    machine = MACHINES[name]
    folder = tmp_path / machine.folder
    if machine.linked:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    folder.mkdir(exist_ok=True)
    write_run(tmp_path / "plain")
    recipe = (tmp_path / "plain" / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace(f"{tmp_path}/plain/", ""))
    shutil.copy(tmp_path / "plain" / "corpus.jsonl", folder)
    ended = _command(server, machine, folder, "train", "recipe.toml")
    if machine.refused:
        assert ended.code in (1, 2) and "Traceback" not in ended.err, ended
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert re.search(machine.refused, line), ended
        return
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    require_whole(folder / "runs", whole)
    (run,) = (path for path in (folder / "runs").iterdir() if path.is_dir())
    for words in (
        ["show", f"runs/{run.name}"],
        ["runs", "--json"],
        ["report", f"runs/{run.name}"],
        ["compare", run.name, run.name],
    ):
        read = _command(server, machine, folder, *words)
        assert read.code == 0 and "Traceback" not in read.err, (words, read)


def _command(server: Server, machine: Machine, folder: Path, *words: str) -> Answer:
    environment = {"ETUDE_CACHE": str(folder.parent / "cache"), **machine.environment}
    if machine.python is None:
        return server.run(folder, [*words], seconds=_SECONDS, environment=environment, first=machine.first)
    command = [sys.executable, *machine.python, "-P", "-m", "etude", *words]
    ended = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=_SECONDS,
    )
    out, err = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
    return Answer(ended.returncode, out, err, 0.0, 0)
