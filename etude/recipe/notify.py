"""The channels of a recipe that tell people of a run; their secrets stand in the environment, never here."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from etude.recipe.section import Name, Positive, Section, key

ChannelKind = Literal["line", "webhook", "command", "apprise"]
MessageKind = Literal["fault", "finding", "stopped", "session end", "finished", "milestone", "evaluation"]
# Variables of the environment that a channel needs, each behind ETUDE_<NAME>_.
VARIABLES: dict[str, tuple[str, ...]] = {
    "line": ("TOKEN", "TO"), "webhook": ("URL",), "command": ("PROGRAM",), "apprise": ("URLS",),
}  # fmt: skip
_MOST = 10


class Notify(Section):
    """A channel to people: what is told through it, and how often."""

    channel: ChannelKind = key(
        ..., "LINE's Messaging API, a web address, a program of yours, or what apprise knows", example="line"
    )
    name: Name | None = key(
        None,
        "of the channel (default: its kind); its secrets are in the variables ETUDE_<NAME>_...",
        example="team",
    )
    on: Annotated[list[MessageKind], Field(min_length=1)] = key(
        ["fault", "finding", "stopped", "session end", "finished"], "what is told", example=["fault"]
    )
    severity: Literal["info", "warning", "error"] = key(
        "warning", "the least of a finding that is told", needs='on has "finding"'
    )
    per_day: Positive | None = key(None, "messages a day at most, over all runs", example=20)
    per_month: Positive | None = key(None, "messages a month at most, over all runs", example=200)

    @property
    def title(self) -> str:
        """The name of the channel, by default its kind."""
        return self.name or self.channel

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the environment that the channel needs: `{"TOKEN": "ETUDE_LINE_TOKEN"}`."""
        stem = re.sub("[.-]", "_", self.title).upper()
        return {part: f"ETUDE_{stem}_{part}" for part in VARIABLES[self.channel]}


def find_channel_conflicts(channels: Sequence[Notify]) -> Iterator[tuple[str, str]]:
    """Channels that share a name, and with it their secrets, each as (dotted key, what is wrong)."""
    if len(channels) > _MOST:
        yield "notify", f"has {len(channels)} channels; it takes {_MOST}"
    for index, channel in enumerate(channels[:_MOST]):
        if any(set(channel.variables.values()) & set(each.variables.values()) for each in channels[:index]):
            problem = f'is "{channel.title}", and another channel has the variables of that name'
            yield f"notify.{index}.name", f"{problem}; give each a name of its own"
