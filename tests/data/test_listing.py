"""The files of a source are those that pathlib finds, but for hidden ones, links outside and etude's own."""

import itertools
import os
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from etude.data.layout import look_through
from etude.data.listing import list_files, list_sources, require_rows
from etude.data.sources import read_documents, source_key
from etude.errors import InputError
from etude.recipe.data import Source
from etude.recipe.load import change, recipe_from
from tests.recipes import tiny


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        list_files(Source(path=str(path), **settings))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800
    return message


def test_hidden_files_and_links_that_lead_outside_are_passed_over(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.py", tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)
    (folder / "sub").mkdir()
    outside.write_text("outside")
    (folder / ".git" / "config.py").write_text("hidden")
    (folder / ".hidden.py").write_text("hidden")
    (folder / "link.py").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    (folder / "sub" / "in.py").write_text("in")
    (folder / "inner.py").symlink_to(folder / "sub" / "in.py")
    os.mkfifo(folder / "pipe.py")
    for glob in ("**/*", "**/*.py", "*/*.py", "../*.py"):
        source = Source(path=str(folder), glob=glob)
        try:
            names = [path.name for path in list_files(source)]
        except InputError:
            names = []
        assert set(names) <= {"in.py", "inner.py"}, glob


def test_the_standard_library_comes_without_tests_installed_packages_and_encodings() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path.relative_to(root) for path in list_files(Source(source="python-stdlib"))]
    assert files == sorted(files, key=lambda path: path.as_posix()) and len(files) > 300
    assert Path("asyncio/tasks.py") in files and Path("unittest/mock.py") in files
    parts = {part for path in files for part in path.parts}
    assert not parts & {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "__pycache__",
        "encodings",
    }
    documents = read_documents(Source(source="python-stdlib"))
    asyncio = {
        next(documents).group for path in files if path.parts[0] == "asyncio" or path < Path("asyncio")
    }
    assert str(root / "asyncio") in asyncio


def test_files_that_are_no_files_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.txt")
    os.mkfifo(tmp_path / "pipe")
    assert "plain file" in refusal(tmp_path / "pipe")
    assert "plain file" in refusal(Path("/dev/zero"))
    assert "no file that matches" in refusal(tmp_path, glob="*.py")
    assert "no pattern" in refusal(tmp_path, glob="/etc/*")
    assert "no pattern" in refusal(tmp_path, glob="**.py")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


def test_what_etude_writes_into_the_folder_of_a_source_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    source = Source(path=str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    before = source_key(source), look_through(source).describe(1)
    for folder in ("runs/small-0a1b2c/checkpoints", "cache/prepared"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "tokenizer.json").write_text("{}")
    (tmp_path / "runs/small-0a1b2c/run.json").write_text("{}")
    assert list_files(source) == [tmp_path / "a.py"] and source_key(source) == before[0]
    assert (
        look_through(source).describe(1) == before[1] + ", without 2 of runs or of the cache of etude (cache)"
    )
    # A folder that somebody names is meant, and one that looks like a run in part is data.
    (tmp_path / "runs/small-0a1b2c/checkpoints/b.py").write_text("b = 1")
    assert len(list_files(Source(path=str(tmp_path / "runs/small-0a1b2c")))) == 3
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    assert len(list_files(source)) == 2


def test_a_source_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache/prepared").mkdir(parents=True)
    (tmp_path / "cache/prepared/a.py").write_text("a = 1")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    for path in ("cache", "cache/prepared"):
        assert "is in $ETUDE_CACHE, which etude fills" in refusal(tmp_path / path)


GLOBS = (
    "**/*",
    "*",
    "*.py",
    "**/*.py",
    "a/*",
    "a/**",
    "a/**/*.py",
    "**/b/*",
    "*/*/*",
    "**/a/**/c.py",
    "[ab]/?.py",
    "./a/**/**/*",
)


@pytest.mark.parametrize("glob", GLOBS)
def test_a_glob_chooses_the_files_that_pathlib_finds(glob: str, tmp_path: Path) -> None:
    folders = ["", "a", "b", "a/b", "a/b/a", "b/a/b", "a/a/a"]
    for folder, name in itertools.product(folders, ("c.py", "d.py", "c.txt", "C.PY")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text("text")
    pattern = f"{glob}/*" if glob.endswith("**") else glob  # pathlib's ** alone finds folders
    expected = sorted(path for path in tmp_path.glob(pattern) if path.is_file())
    found = list_files(Source(path=str(tmp_path), glob=glob))
    assert found and sorted(found) == expected
    assert found == sorted(found, key=lambda path: path.relative_to(tmp_path).as_posix())


def test_sources_come_in_reading_order_with_their_uses() -> None:
    uses = ("train", "validation", "test")
    named = {use: [{"path": f"{use}{number}"} for number in range(2)] for use in reversed(uses)}
    train = {"steps": 1, "global_batch_size": 1, "seq_len": 8}
    recipe = recipe_from({"name": "x", "tokenizer": {"train_vocab_size": 300}, "data": named, "train": train})
    found = [(use, Path(str(source.path)).name) for use, source in list_sources(recipe)]
    assert found == [(use, f"{use}{number}") for use in uses for number in range(2)]


def test_rows_of_data_that_are_not_here_are_asked_for_where_passes_are_counted(tmp_path: Path) -> None:
    values = tiny(tmp_path / "gone.py", {"train.steps": 4})
    require_rows(recipe_from(values), None)
    del values["train"]["steps"]
    passes = recipe_from(change(values, {"train.epochs": 2}))
    require_rows(passes, 100)
    with pytest.raises(
        InputError, match=r"rows there are is not known, as .*gone.py is not here; give --rows"
    ):
        require_rows(passes, None)
    (tmp_path / "gone.py").write_text("x = 1")
    require_rows(passes, None)
