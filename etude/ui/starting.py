"""The start of a run from the page: its recipe in a new file, and a training that outlives the server."""

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.launch.detached import Detached
from etude.recipe.load import parse_recipe
from etude.records.folder import is_run_folder
from etude.text import printable, shorten
from etude.ui.priority import at_first_priority
from etude.ui.recipes import FILE, require_short

if TYPE_CHECKING:
    from etude.ui.library import Library

_PATIENCE_SECONDS = 20.0  # in which most runs begin; the page asks again for one that prepares its data
_LOOK_SECONDS = 0.3
_MOST_STARTS, _MOST_NAMES, _MOST_LINES = 50, 99, 50


def places(library: "Library") -> tuple[Path, Path]:
    """The folders of new recipes and of new runs: a folder `runs` is for runs, and recipes lie beside it."""
    first = library.folders[0].absolute()
    if is_run_folder(first):
        first = first.parent
    if first.name == "runs":
        return first.parent, first
    has_runs = any(run.path.absolute().parent == first for run in library.runs().values())
    return first, first if has_runs else first / "runs"


class Starts:
    """Trainings that were started from the page, each told of until its run has begun. Any thread may ask."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._known: OrderedDict[str, _Start] = OrderedDict()

    def start(
        self,
        library: "Library",
        text: str,
        *,
        anew: bool = False,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> dict[str, Any]:
        """Write the recipe into a new file and train it; returns the run's id, a problem, or what it does.

        anew: also if a run of the recipe is unfinished or finished. `start` is the key to ask again by.

        Raises: RecipeError if the recipe has problems; InputError, StorageError if it cannot be written.
        """
        require_short(text)
        folder, runs = places(library)
        recipe = parse_recipe(text, FILE, folder)
        path = write_recipe(folder, recipe.name, text)
        words = ["train", str(path), "--runs", str(runs), *(["--new"] if anew else [])]
        with self._turn:
            key = secrets.token_hex(6)
            started = at_first_priority(lambda: Detached.start(words, runs))
            self._known[key] = _Start(started, path)
            while len(self._known) > _MOST_STARTS:
                self._known.popitem(last=False)
        return self.look(library, key, patience_seconds)

    def look(self, library: "Library", key: str, patience_seconds: float = 0.0) -> dict[str, Any]:
        """The run of a start, its problem, or the lines that it printed so far. Raises: MissingError."""
        if key not in self._known:
            raise MissingError(f"nothing was started here as {shorten(key, 40)}")
        deadline = time.monotonic() + patience_seconds
        while True:
            with self._turn:
                found = self._known[key].look()
            if "problem" in found or "path" in found or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        if path := found.pop("path", None):
            library.forget()
            found["run"] = next((each for each, run in library.runs().items() if run.path == path), None)
        return {"start": key, **found}


class _Start:
    """A start and what it has told."""

    def __init__(self, started: Detached, recipe: Path) -> None:
        self._started, self._recipe = started, recipe
        self._lines: list[str] = []
        self._end: dict[str, Any] | None = None

    def look(self) -> dict[str, Any]:
        if self._end is None:
            is_over = self._started.process.poll() is not None  # before the look, so that no line is missed
            self._lines = [*self._lines, *map(printable, self._started.lines())][-_MOST_LINES:]
            if (run := self._started.begun()) is not None:
                self._end = {"path": run.path}
            elif is_over:
                self._started.forget()
                said = [line for line in self._lines if line.startswith("error: ")] or self._lines[:1]
                self._end = {
                    "problem": (said or ["the training ended without a word"])[0].removeprefix("error: ")
                }
        return {"recipe": self._recipe.name, "lines": list(self._lines), **(self._end or {})}


def write_recipe(folder: Path, name: str, text: str) -> Path:
    """Write a recipe into a folder under its name, or with a number where another file has that.

    Raises: InputError if the folder is none, or the names are taken; StorageError.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, so the recipe cannot be written there")
    for path in _paths(folder, name):
        try:
            durable.write_new_files({path: text.encode()})
        except FileExistsError:
            continue
        return path
    raise InputError(f"there are {_MOST_NAMES} recipes of this name in {folder}; give it another name")


def _paths(folder: Path, name: str) -> Iterator[Path]:
    """Names that lie in the folder itself; that of a recipe has no separator, by its schema."""
    assert os.sep not in name and not name.startswith(".")
    yield folder / f"{name}.toml"
    yield from (folder / f"{name}-{number}.toml" for number in range(2, _MOST_NAMES + 1))
