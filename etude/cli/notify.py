"""The commands that send messages about runs."""

import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.options import Json, Overrides, RecipePath, Restarts, RunName, Runs, load
from etude.cli.printing import print_rows, say
from etude.errors import EtudeError, InputError

if TYPE_CHECKING:
    from etude.notify.message import Message
    from etude.notify.outcome import Channel, Outcome
    from etude.notify.quota import Quota
    from etude.recipe.notify import Notify

_TRIES = 3
_MOST_SECONDS = 40.0  # for all messages; what is under way then ends with this process


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

    loaded = load(recipe, overrides, None)
    if not loaded.notify:
        raise InputError(f"{recipe} has no [[notify]]; add one, as docs/notifications.md shows")
    channels = open_channels(loaded.notify)
    answers = [] if dry_run else _send_side_by_side(loaded.notify, channels)
    rows = []
    for index, settings in enumerate(loaded.notify):
        for number, kind in enumerate(dict.fromkeys(settings.on)):
            state, why = "not sent", f"--dry-run: {sample(kind).title}"
            if not dry_run:
                told = answers[index]
                late = ("off", f"no answer within {_MOST_SECONDS:g} s")
                state, why = (told[number].state, told[number].why) if number < len(told) else late
            rows.append({"channel": settings.title, "kind": kind, "state": state, "why": why})
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


def _send_side_by_side(settings: Sequence["Notify"], channels: Sequence["Channel"]) -> "list[list[Outcome]]":
    """The outcomes of each channel that came in time: one that hangs keeps no other waiting."""
    answers: list[list[Outcome]] = [[] for _ in channels]
    threads = [
        threading.Thread(target=_send_all, args=each, daemon=True)
        for each in zip(settings, channels, answers)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _MOST_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [list(each) for each in answers]


def _send_all(settings: "Notify", channel: "Channel", answers: "list[Outcome]") -> None:
    """Send a message of each kind through a channel, until it is off, and add what came of each."""
    from etude.notify.compose import sample
    from etude.notify.outcome import Outcome
    from etude.notify.quota import Quota

    quota = Quota(channel.identity, settings.per_day, settings.per_month)
    for kind in dict.fromkeys(settings.on):
        try:
            is_off = bool(answers) and answers[-1].state == "off"
            answers.append(answers[-1] if is_off else _send(channel, quota, sample(kind)))
        except EtudeError as error:  # there is no place to count messages in
            answers.append(Outcome("off", str(error)))


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
