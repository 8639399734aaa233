"""Recipes that cannot be read, or say what no recipe can."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case

GOOD = b"""name = "good"
[tokenizer]
train_vocab_size = 300
[[data.train]]
path = "corpus.txt"
[train]
steps = 10
global_batch_size = 8
"""


def recipe(content: bytes) -> Callable[[Path], list[str]]:
    """A recipe file with this content, given to `etude check`."""

    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").write_bytes(content)
        return ["check", "recipe.toml"]

    return make


def change(line: bytes, of: bytes = b"") -> Callable[[Path], list[str]]:
    """A good recipe with a line added to the top, or in place of one of its own."""
    return recipe(GOOD.replace(of, line, 1) if of else line + b"\n" + GOOD)


def linked(target: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").symlink_to(target)
        return ["check", "recipe.toml"]

    return make


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "recipe.toml")
    return ["check", "recipe.toml"]


def huge(folder: Path) -> list[str]:
    with (folder / "recipe.toml").open("wb") as file:
        file.truncate(1 << 30)
    return ["check", "recipe.toml"]


def directory(folder: Path) -> list[str]:
    (folder / "recipe.toml").mkdir()
    return ["check", "recipe.toml"]


def override(*words: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").write_bytes(GOOD)
        return ["check", "recipe.toml", *words]

    return make


CONTENT = {
    "an empty recipe": (b"", "name"),
    "a recipe of comments": (b"# nothing", "the recipe is empty"),
    "a recipe in UTF-16": ('name = "a"'.encode("utf-16"), "not UTF-8"),
    "a recipe in UTF-16 without a mark": ('name = "a"'.encode("utf-16-le"), "not UTF-8 text: .* are NUL"),
    "a recipe in Latin-1": (b'name = "\xe9"', "not UTF-8"),
    "a recipe that is a program": (b"\x7fELF\x02\x01" + bytes(range(256)), "not UTF-8"),
    "a recipe in YAML": (b"name: a\ntrain:\n  steps: 3\n", "recipe.toml:1: not valid TOML"),
    "a recipe in JSON": (b'{"name": "a"}', "recipe.toml:1: not valid TOML"),
    "a key of 100,000 parts": (b"a" + b".a" * 100_000 + b" = 1", "nested too deeply"),
    "a section of 100,000 parts": (b"[a" + b".a" * 100_000 + b"]", "nested too deeply"),
    "a quoted key of 100,000 parts": (
        b'"a"' + b'."a"' * 100_000 + b" = 1",
        "over 20,000 lines, keys and values",
    ),
    "lists within lists 100,000 deep": (b"a = " + b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "tables within tables": (b"a = " + b"{a = " * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    "a word of a megabyte": (b"a" * 1_000_000, "not valid TOML"),
    "a key of a megabyte": (b"a" * 900_000 + b" = 1\n" + GOOD, "is not a key"),
    "a text of a megabyte": (GOOD.replace(b"good", b"g" * 1_000_000), 'name .* is "ggg'),
    "90,000 quotes left open": (b'"""\\"' * 90_000, "over 20,000 lines, keys and values"),
    "a number of a million digits": (b"seed = " + b"9" * 1_000_000, "number is too long"),
    "a key that is given twice": (b'name = "a"\nname = "b"', "given twice"),
    "a section that is given twice": (GOOD + b"[train]\nsteps = 1", "given twice"),
    "a section that is a list": (GOOD.replace(b"[train]", b"[[train]]"), "must be a .section"),
    "an unknown section int": (GOOD + b"[int]", "int .recipe.toml:9. is not a key"),
    "a NUL in a key": (b"na\0me = 1", "not valid TOML"),
}
LINES = {
    "a key in brackets": (b'"a[0]" = 1', "a.0. .recipe.toml:1. is not a key"),
    "a key with a line end": (b'"a\\nerror: b" = 1', "is not a key"),
    "a key with an escape sequence": (b'"\\u001b[2J" = 1', "x1b.2J .recipe.toml:1. is not a key"),
    "a key with braces": (b'"{0}" = 1', "is not a key"),
    "an empty key": (b'"" = 1', "is not a key"),
    "a seed beyond 64 bits": (b"seed = 9223372036854775808", "seed .recipe.toml:1. is .*; it must be below"),
    "a seed of 400 digits": (b"seed = 1" + b"0" * 400, "seed .recipe.toml:1. is 1000"),
    "a seed that is infinite": (b"seed = inf", "seed .recipe.toml:1. is inf; it must be a whole number"),
    "a seed that is a date": (b"seed = 2020-01-01", "seed .recipe.toml:1. is 2020-01-01"),
}
REPLACED = {
    "a name that is a date": (b'"good"', b"2020-01-01", "name .recipe.toml:1. is 2020-01-01"),
    "a name with a way out": (b'"good"', b'"../x"', "1 to 64 lower case"),
    "a name with markup": (b'"good"', b'"<script>"', "1 to 64 lower case"),
    "steps that are not a number": (b"steps = 10", b"steps = nan", "train.steps .recipe.toml:7. is nan"),
    "steps beyond all bounds": (b"steps = 10", b"steps = 1" + b"0" * 300, "train.steps .recipe.toml:7."),
    "steps in quotes": (b"steps = 10", b'steps = "10"', "it must be a whole number"),
    "steps and epochs": (b"steps = 10", b"steps = 10\nepochs = 1", "either steps or epochs"),
    "a path with a NUL": (b"corpus", b"c\\u0000", "data.train.0.path .* NUL byte"),
    "an empty path": (b"corpus.txt", b"", "data.train.0.path .* is empty"),
    "a path that is too long": (b"corpus", b"c" * 300, "data.train.0.path .* longer than a path may be"),
    "a home of nobody": (b"corpus", b"~nosuchuser/c", "no home of such a user"),
    "a device that is not known": (
        b"steps = 10",
        b'steps = 10\ndevice = "tpu"',
        "train.device .recipe.toml:8.",
    ),
    "more ranks than there are": (b"steps = 10", b"steps = 10\ndevices = 1000000000", "at most 4,096"),
}
OVERRIDES = {
    "an override that is a word": ("x", "not of the form key=value"),
    "an override without a key": ("=", "not of the form key=value"),
    "an override with an empty part": ("a..b=1", "not of the form key=value"),
    "an override of 100,000 parts": ("a" + ".a" * 50_000 + "=1", "not of the form key=value"),
    "an override of 100,000 letters": ("a" * 100_000 + "=1", "is not a key"),
    "an override with deep lists": ("seed=" + "[" * 100_000, "seed .override. is"),
    "an override of a number in no list": ("data.train.99999999999999999999.path=x", "there is no number"),
    "an override through a value": ("name.x=1", "name is a value, not a section"),
    "an override with an escape sequence": ("\x1b]0;x\x07=1", "not of the form key=value"),
    "an override with a line end": ("seed=1\nerror: x", "seed .override. is"),
    "an override that is not UTF-8": ("name=\udcff", "name .override."),
    "an override of a section by a list": ("optim=[]", "optim .override. is"),
}
CASES = [
    *(Case(name=name, make=recipe(content), says=says) for name, (content, says) in CONTENT.items()),
    *(Case(name=name, make=change(line), says=says) for name, (line, says) in LINES.items()),
    *(Case(name=name, make=change(new, of), says=says) for name, (of, new, says) in REPLACED.items()),
    *(Case(name=name, make=override(word), says=says) for name, (word, says) in OVERRIDES.items()),
    Case(name="a recipe that is a pipe", make=pipe, says="recipe.toml is (a pipe|not a plain file)"),
    Case(
        name="a recipe that is missing", make=lambda folder: ["check", "recipe.toml"], says="does not exist"
    ),
    Case(name="a recipe that is a folder", make=directory, says="is a folder"),
    Case(name="a recipe of a gigabyte", make=huge, says="over 1 MiB"),
    Case(name="a recipe that never ends", make=linked("/dev/zero"), says="not a plain file"),
    Case(name="a recipe of /proc", make=linked("/proc/self/mem"), says="recipe"),
    Case(name="a recipe that links to itself", make=linked("recipe.toml"), says="recipe"),
    Case(name="a recipe that links to nothing", make=linked("gone.toml"), says="does not exist"),
]
