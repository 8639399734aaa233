"""Examples in the help: one for each command, and each a command line that is understood."""

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from etude.cli.examples import _EXAMPLES
from etude.cli.main import app
from tests.conftest import Outcome


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, groups included."""
    waiting: list[tuple[str, Any]] = [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [(f"{name} {part}".strip(), c) for part, c in getattr(command, "commands", {}).items()]


def test_each_command_has_an_example_and_each_example_a_command(etude: Callable[..., Outcome]) -> None:
    names = dict(commands())
    assert set(names) == set(_EXAMPLES)
    for name, lines in _EXAMPLES.items():
        shown = etude(*name.split(), "--help")
        assert shown.code == 0 and all(
            " ".join(line.split()) in " ".join(shown.out.split()) for line in lines
        )


@pytest.mark.parametrize(
    "line", [line for lines in _EXAMPLES.values() for line in lines if "COMMAND" not in line]
)
def test_an_example_is_understood(line: str) -> None:
    _, *words = shlex.split(line.split(" < ")[0].split(" > ")[0])
    command = typer.main.get_command(app)
    context = command.make_context("etude", list(words))
    while hasattr(command, "commands"):  # down to the command that would run; nothing runs
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    assert context.command is command
