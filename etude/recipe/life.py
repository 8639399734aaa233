"""The sections of a recipe that say how a run lives: its session and its mirror."""

from etude.recipe.section import Duration, Section, key


class Life(Section):
    """The life of a run: the end of its session, the patience of its ranks, and the copy of what it saves."""

    session_limit: Duration | None = key(
        None,
        "time that the process has; before it is over the run saves and ends, to be resumed",
        example="11h30m",
    )
    grace: Duration | None = key(
        None,
        "time between SIGTERM or SIGUSR1 and the end of the process; what does not fit is not begun",
        example="30s",
    )
    lost_after: Duration = key(
        "40s",
        "silence after which a rank counts as stopped or lost, which ends the attempt on all; one that works "
        "is never silent",
        example="40s",
        needs="train.devices > 1",
    )
    hung_after: Duration = key(
        "10m",
        "time without any work after which a rank hangs; what is above 10m is the limit of a step's sum too",
        example="10m",
        needs="train.devices > 1",
    )
    mirror: str | None = key(
        None,
        "folder on another disk, or bucket (s3://...), that gets a copy of checkpoints and records",
        example="/content/drive/MyDrive/runs",
    )
    mirror_data: bool = key(False, "copy the prepared data into the mirror too")


# Sections that say how a run lives, not what it computes: another value of theirs makes no other recipe.
BESIDE = frozenset({"run", "notify"})


def is_beside(key: str) -> bool:
    """True for a dotted key of such a section."""
    return key.partition(".")[0] in BESIDE
