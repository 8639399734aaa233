"""Command lines, paths and environments that cannot be meant."""

import shlex
from collections.abc import Callable
from pathlib import Path

from tests.hostile.bad_recipes import GOOD
from tests.hostile.case import Case


def command(text: str, *more: str) -> Callable[[Path], list[str]]:
    """The words of a command, in a folder with a good recipe and its data."""

    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").write_bytes(GOOD)
        (folder / "corpus.txt").write_text("def f(x):\n    return x\n" * 200, encoding="utf-8")
        return [*shlex.split(text), *more]

    return make


LINES = {
    "an unknown command": ("bogus", "No such command"),
    "an unknown command that wants JSON": ("bogus --json", "No such"),
    "an unknown option": ("check recipe.toml --bogus", "No such option"),
    "a command without its argument": ("check", "Missing argument"),
    "an argument too many": ("schema x", "unexpected extra argument"),
    "no ranks": ("train recipe.toml --devices 0", "--devices"),
    "less than no ranks": ("train recipe.toml --devices -1", "--devices"),
    "a thousand million ranks": (
        "train recipe.toml --devices 1000000000",
        "train.devices .override. is 1000000000",
    ),
    "ranks that are a word": ("train recipe.toml --devices two", "--devices"),
    "more ranks than places": (
        "train recipe.toml --devices 4096 train.global_batch_size=4096",
        "train.devices is 4,096, a process each, and this machine has",
    ),
    "a repetition of one": ("train recipe.toml --repeat 1", "--repeat"),
    "a run of no name": ("show ''", "is empty"),
    "a run that is not there": ("show gone", "there is no run gone"),
    "a run outside": ("report ../../etc/passwd", "there is no run"),
    "a checkpoint of no run": ("generate @ --prompt x", "RUN@best"),
    "a run and no checkpoint": ("generate x@ --prompt x", "RUN@best|there is no"),
    "a checkpoint of a checkpoint": ("generate a@b@c --prompt x", "RUN@best|there is no run"),
    "weights of no run": ("train recipe.toml --from x@y@z", "RUN@best|there is no run"),
    "one run to compare": ("compare a", "two runs"),
    "no token to draw from": ("generate x --prompt a --top-k 0", "--top-k is 0"),
    "less than no token": ("generate x --prompt a --top-k -1", "--top-k is -1"),
    "a temperature that is no number": ("generate x --prompt a --temperature nan", "--temperature"),
    "an endless answer": ("generate x --prompt a --max-tokens 0", "--max-tokens is 0"),
    "a seed below zero": ("generate x --prompt a --seed -1", "--seed is -1"),
    "a seed beyond 64 bits": (
        "generate x --prompt a --seed 99999999999999999999",
        "--seed is 99999999999999999999",
    ),
    "a watch of nothing": ("watch gone", "gone is no file, and there is no run gone"),
    "a watch of a file that is no log": ("watch recipe.toml", "no loss was found"),
    "a watch of a folder without a log": ("watch .", "holds no log"),
    "a watch of a device": ("watch /dev/zero", "is a device"),
    "a watch that grows and is JSON": ("watch gone --follow --json", "--follow prints text"),
    "a note on no run": ("note gone text --section next", "there is no run gone"),
    "a note under no heading": ("note gone text --section other", "--section"),
    "a rater without a name": ("rate gone --rater ''", "there is no run|no name"),
    "runs in a file": ("show x --runs recipe.toml", "is not a folder|is no folder"),
    "runs in no name": ("train recipe.toml --runs ''", "is empty"),
    "a page that is a folder": ("data page recipe.toml --out .", "is a folder"),
    "a page in no folder": ("data page recipe.toml --out gone/page.md", "folder"),
    "an export of another kind": ("export x out --to onnx", "onnx|there is no run"),
    "a recipe over another": ("init --data corpus.txt --model m --out recipe.toml", "is there already"),
    "a model that is no id": ("import 'a b' out", "neither a folder nor a hub id"),
    "a recipe that no etude has": ("recipes show gone", "no recipe gone comes with etude"),
    "a recipe outside the recipes": ("recipes show ../pyproject", "no recipe ../pyproject comes with etude"),
    "a copy over another recipe": ("recipes copy demo recipe.toml", "is there already"),
    "a copy in no folder": ("recipes copy demo gone/recipe.toml", "lies in no folder"),
    "a prompt that is to be read twice": ("generate x --prompt - --prompt -", "once only"),
    "an error that is wanted as JSON": ("show gone --json", "there is no run gone"),
    "no rows to show": ("data show recipe.toml --rows 0", "--rows"),
}
WORDS = {
    "a command with an escape sequence": ("", "\x1b[2J", "No such command"),
    "an option with an escape sequence": ("check", "--\x1b]0;x\x07", "No such option"),
    "a recipe of etude with an escape sequence": ("recipes show", "a\x1b[2Jb", r"no recipe a\\x1b"),
    "a run with an escape sequence": ("show", "a\x1b[2Jb", r"there is no run a\\x1b"),
    "a run written from right to left": ("show", "a\u202egpj", r"there is no run a\\u202e"),
    "a run of a megabyte": ("show", "x" * 100_000, "longer than a path may be"),
    "a run that is not UTF-8": ("show", "\udcff\udcfe", "there is no run"),
    "a run with a NUL": ("show", "a\0b", "NUL byte"),
    "a recipe with a NUL": ("check", "a\0b", "NUL byte"),
    "a recipe with a long name": ("check", "x" * 300 + ".toml", "longer than a path may be"),
    "a recipe in a deep folder": ("check", "x/" * 3000, "longer than a path may be"),
    "a recipe with a line end in its name": ("check", "a\nerror: b.toml", "does not exist"),
    "scores that are a megabyte": ("rate gone --rater me --scores", "9" * 100_000, "there is no run"),
}
ENVIRONMENTS = {
    "a cache that is a file": ({"ETUDE_CACHE": "recipe.toml"}, "recipe.toml"),
    "a cache of a long name": ({"ETUDE_CACHE": "x" * 300}, "x{20}"),
    "a number of ranks that is a word": ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
    "a number of ranks below zero": ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
}
CASES = [
    *(Case(name=name, make=command(line), says=says) for name, (line, says) in LINES.items()),
    *(Case(name=name, make=command(line, word), says=says) for name, (line, word, says) in WORDS.items()),
    *(
        Case(name=name, make=command("prepare recipe.toml"), says=says, environment=environment)
        for name, (environment, says) in ENVIRONMENTS.items()
    ),
]
