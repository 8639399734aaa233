"""The commands that steer a run that is going on, from any terminal that sees its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.completion import complete_override
from etude.cli.options import Json, RunName, Runs
from etude.cli.printing import print_json, print_text, say
from etude.errors import InputError
from etude.text import printable

if TYPE_CHECKING:
    from etude.records.store import Run

Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="wait until it is done, or only leave the request")
]
Reason = Annotated[str, typer.Option("--reason", help="why, for the record of the run")]


def stop(
    run: RunName, reason: Reason = "", wait: Wait = True, runs: Runs = Path("runs"), as_json: Json = False
) -> None:
    """Save a run that is going on and end it; etude resume goes on with it."""
    ask(_open(run, runs), "stop", wait=wait, as_json=as_json, reason=reason)


def pause(
    run: RunName,
    release: Annotated[
        bool, typer.Option("--release", help="end the process too, with exit code 75, as for another machine")
    ] = False,
    reason: Reason = "",
    wait: Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Save a run, free its GPU, and let it wait for etude resume."""
    ask(_open(run, runs), "pause", wait=wait, as_json=as_json, reason=reason, release=release)


def checkpoint(
    run: RunName, reason: Reason = "", wait: Wait = True, runs: Runs = Path("runs"), as_json: Json = False
) -> None:
    """Save a checkpoint of a run after the step that it is at."""
    ask(_open(run, runs), "checkpoint", wait=wait, as_json=as_json, reason=reason)


def sample(
    run: RunName,
    prompt: Annotated[str, typer.Argument(help="the text to continue, or the instruction", metavar="PROMPT")],
    wait: Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Let the model of a run continue a prompt now, and keep the text in its record."""
    ask(_open(run, runs), "generate", wait=wait, as_json=as_json, text=prompt)


def set_value(
    run: RunName,
    change: Annotated[
        list[str],
        typer.Argument(
            help="such as optim.learning_rate=1e-4", metavar="KEY=VALUE...", autocompletion=complete_override
        ),
    ],
    reason: Reason = "",
    wait: Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Give keys of the recipe other values from the next step on; others take a fork."""
    from etude.recipe.course import KEYS, why_unchangeable
    from etude.recipe.toml import parse_override
    from etude.records.folder import as_argument

    found, changes = _open(run, runs), [parse_override(text) for text in change]
    for key, _ in changes:  # before any is asked for, so that not some are made
        if key not in KEYS:
            raise InputError(why_unchangeable(key, as_argument(found.path)))
    for key, value in changes:
        ask(found, "set", wait=wait, as_json=as_json, key=key, value=value, reason=reason)


def resume(run: "Run", *, as_json: bool = False) -> bool:
    """Let a paused run go on that a process still holds; False if none does, and it can be continued here.

    Raises: InputError if the run is going on.
    """
    from etude.control.mailbox import is_going_on

    if not is_going_on(run):
        return False
    if run.state == "running":
        raise InputError(f"run {run.name} is going on already; see etude show {run.name}")
    ask(run, "resume", wait=True, as_json=as_json)
    return True


def ask(run: "Run", action: str, *, wait: bool, as_json: bool = False, **values: Any) -> None:
    """Leave a request for a run, and print what becomes of it.

    Raises: InputError if the run is not going on, or refuses; FaultError if it does not answer.
    """
    from etude.control.ask import Asked
    from etude.records.events import ACCEPT, REFUSALS

    asked = Asked(run, action, channel="cli", **values)
    if not wait:
        if as_json:
            print_json({"run": run.name, "request": asked.id})
        else:
            print_text(f"{run.name}: asked to {action} (request {asked.id})")
        return
    for answer in asked.answers():
        if answer.action == ACCEPT:
            say(f"{run.name}: {answer.reason}")
        elif answer.action in REFUSALS:
            raise InputError(f"run {run.name} {_REFUSED[answer.action]} {answer.reason}")
        elif as_json:
            told = {"step": answer.step, "action": answer.action, "reason": answer.reason}
            print_json({"run": run.name, "request": asked.id, **told, "changes": answer.changes})
        else:  # a sample of code keeps its lines
            said = answer.reason if answer.action == action == "generate" else printable(answer.reason)
            print_text(f"step {answer.step:,}  {answer.action}: {said}")


_REFUSED = {"refuse": "refused", "void": "did not do"}


def _open(run: str, runs: Path) -> "Run":
    from etude.records.store import open_run

    return open_run(run, runs)
