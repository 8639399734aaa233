"""Completion in a shell: names of runs and checkpoints, and keys of a recipe with the words that they take.

A run is what has a run.json; nothing in it is read, so that a key pressed twice is answered at once.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import typer

_SWITCH, _HEAD = "_ETUDE_COMPLETE", "_ETUDE_COMPLETE_HEAD"
_JOINTS = ("=", "@")  # at which bash parts what is one argument here
# A shell reads what it is offered: zsh would run a backslash before `$(...)`, and a line break is two names.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def join_words() -> None:
    """Join what bash parts in two, as `key=value` and `run@best`, before a completion is parsed.

    Of the word that is completed bash replaces only what follows a `=`, or an `@` with it. So that alone is
    left to complete, and what comes before it is kept apart.
    """
    if os.environ.get(_SWITCH) != "complete_bash":
        return
    text, at = os.environ.get("COMP_WORDS", ""), int(os.environ.get("COMP_CWORD") or 0)
    joined: list[str] = []
    for word in [*text.split("\n" if "\n" in text else " "), ""][: at + 1]:
        if joined and (word in _JOINTS or joined[-1].endswith(_JOINTS)):
            joined[-1] += word
        else:
            joined.append(word)
    *words, last = joined
    tail = max(last.rfind("=") + 1, last.rfind("@"), 0)
    if last.startswith("-") and tail:
        words.append(last[: tail - 1])
    else:
        os.environ[_HEAD] = last[:tail]
    os.environ["COMP_WORDS"] = "\n".join([*words, last[tail:]])
    os.environ["COMP_CWORD"] = str(len(words))


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the runs that begin so."""
    return [] if os.environ.get(_HEAD) else [name for name in _runs(ctx) if name.startswith(incomplete)]


def complete_gpu(incomplete: str) -> list[str]:
    """Names of the GPUs whose published rates are known."""
    from etude.gpus import GPUS

    return [name for name in GPUS if name.startswith(incomplete.lower())]


def complete_checkpoint(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the runs that begin so; behind RUN@ its checkpoints."""
    head = os.environ.get(_HEAD, "")
    run, at, _ = (head + incomplete).partition("@")
    if not at:
        return complete_run(ctx, incomplete)
    if run not in _runs(ctx):
        return []
    steps = _plain(path.name for path in (_folder(ctx) / run / "checkpoints").glob("step-*"))
    return [f"{run}@{name}".removeprefix(head) for name in ("best", "last", *steps)]


def complete_override(incomplete: str) -> list[str]:
    """Keys of a recipe that begin so; of a single one its values: the words it takes, or an example."""
    from etude.recipe.keys import recipe_keys, value_choices
    from etude.recipe.toml import toml_text

    head = os.environ.get(_HEAD, "")
    key, sign, _ = (head + incomplete).partition("=")
    found = {name: field for name, field in recipe_keys().items() if name.startswith(key)}
    if sign:
        found = {name: field for name, field in found.items() if name == key}
    if len(found) != 1:
        return list(found)
    ((name, field),) = found.items()
    examples = [toml_text(example) for example in field.examples or () if not isinstance(example, str)]
    # Two of them or more, since bash puts a space behind a word that has one end only.
    values = value_choices(field) or ["", *examples]
    return [f"{name}={value}".removeprefix(head) for value in values]


def _folder(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("runs") or "runs")


def _runs(ctx: typer.Context) -> list[str]:
    folder = _folder(ctx)
    return _plain(path.parent.name for path in folder.glob("*/run.json")) if folder.is_dir() else []


def _plain(names: Iterable[str]) -> list[str]:
    """The names that a shell takes as they are, sorted."""
    return sorted(name for name in names if _PLAIN.fullmatch(name))
