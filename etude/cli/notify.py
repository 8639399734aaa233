"""The commands that send messages about runs."""

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.options import Json, Overrides, RecipePath, Restarts, RunName, Runs, load
from etude.cli.printing import print_rows, say
from etude.errors import InputError

if TYPE_CHECKING:
    from etude.notify.message import Message
    from etude.notify.outcome import Channel, Outcome
    from etude.notify.quota import Quota

_TRIES = 3
_MOST_SECONDS = 30.0  # for all messages of a channel; one that is under way then still ends


def test(
    recipe: RecipePath,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check the channels and print the messages; send nothing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send one message of each kind through every channel of a recipe, and say what came of it."""
    from etude.notify.channel import open_channels
    from etude.notify.compose import sample
    from etude.notify.quota import Quota

    loaded = load(recipe, overrides, None)
    if not loaded.notify:
        raise InputError(f"{recipe} has no [[notify]]; add one, as docs/notifications.md shows")
    channels, rows = open_channels(loaded.notify), []
    for settings, channel in zip(loaded.notify, channels):
        quota, state, why = Quota(channel.identity, settings.per_day, settings.per_month), "", ""
        began = time.monotonic()
        for kind in dict.fromkeys(settings.on):
            message = sample(kind)
            if dry_run:
                state, why = "not sent", f"--dry-run: {message.title}"
            elif state != "off":
                outcome = _send(channel, quota, message)
                state, why = outcome.state, outcome.why
            rows.append({"channel": settings.title, "kind": kind, "state": state, "why": why})
            if time.monotonic() - began > _MOST_SECONDS:
                state, why = "off", f"not tried, as those before it took {_MOST_SECONDS:g} s"
    shown = [(f"{row['channel']}: {row['kind']}", _in_words(row)) for row in rows]
    print_rows(shown, rows, as_json)
    if not dry_run and any(row["state"] != "sent" for row in rows):
        raise typer.Exit(1)


def guard(
    run: RunName,
    runs: Runs = Path("runs"),
    restarts: Restarts = 0,
    silence: Annotated[
        float, typer.Option("--silence", min=0.1, help="seconds without a sign of life that are told of")
    ] = 60.0,
) -> None:
    """Tell through the channels of a run that it died or hangs, until it has ended."""
    from etude.notify.guard import Guard, Limits
    from etude.records.store import open_run

    limits = Limits(silence=silence, poll=min(1.0, silence / 4), restarts=restarts)
    found = open_run(run, runs)
    if code := Guard(found, limits, say).watch():
        raise typer.Exit(code)
    say(f"run {found.name} is {found.state}; nothing is left to guard")


def _send(channel: "Channel", quota: "Quota", message: "Message") -> "Outcome":
    """Send a message now, in a few tries."""
    from etude.notify.outcome import Outcome

    if why := quota.take(message.rank, channel.room()):
        return Outcome("held", why)
    key, outcome = str(uuid.uuid4()), Outcome("later")
    for _ in range(_TRIES):
        outcome = channel.send(message, key)
        if outcome.state != "later":
            break
    return outcome


def _in_words(row: dict[str, str]) -> str:
    state = "sent" if row["state"] == "sent" else "not sent"
    return f"{state}: {row['why']}" if row["why"] else state
