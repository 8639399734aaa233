"""Recipes that cannot be read."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case


def recipe(content: bytes) -> Callable[[Path], list[str]]:
    """A recipe file with this content, given to `etude check`."""

    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").write_bytes(content)
        return ["check", "recipe.toml"]

    return make


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "recipe.toml")
    return ["check", "recipe.toml"]


CASES = [
    Case(name="an empty recipe", make=recipe(b""), says="name"),
    Case(name="a recipe in UTF-16", make=recipe('name = "a"'.encode("utf-16")), says="not UTF-8"),
    Case(name="a recipe that is a pipe", make=pipe, says="recipe.toml is (a pipe|not a plain file)"),
    Case(name="a recipe that is missing", make=lambda folder: ["check", "recipe.toml"], says="does not exist"),
]
