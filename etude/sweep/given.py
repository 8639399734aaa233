"""The files that a sweep was read from, looked at while it runs: it goes on as it was read."""

import time
from collections.abc import Callable
from pathlib import Path

from etude.errors import InputError
from etude.recipe.load import read_recipe_text
from etude.sweep.grid import Sweep

_LOOK_SECONDS = 10.0


class GivenFiles:
    """The sweep file and its base recipe, with their texts as they were read."""

    def __init__(self, path: Path, sweep: Sweep, tell: Callable[[str], None]) -> None:
        self._texts, self._tell = {path: sweep.text}, tell
        if isinstance(sweep.file.recipe, str):
            self._texts[path.parent / sweep.file.recipe] = sweep.base_text
        self._told: set[Path] = set()
        self._looked = time.monotonic()

    def look(self, *, at_once: bool = False) -> None:
        """Tell once of a file that is no longer what was read; looks every few seconds, or at once."""
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for path, known in self._texts.items():
            try:
                text = read_recipe_text(path)
            except InputError:
                text = ""
            if text != known and path not in self._told:
                self._told.add(path)
                self._tell(f"{path} has changed since it was read; the trials go on as they were then")
