"""The log within a folder that a training left."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from etude.errors import InputError

_NAMES = (
    r"trainer_state\.json", r"metrics\.csv", r".*\.wandb", r"events\.out\.tfevents\..*",
    r"trainer_log\.jsonl", r"journal\.jsonl", r"wandb-history\.jsonl",
    r"(?:metrics|history|log|train_log|training_log)\.(?:jsonl|csv|json)",
    r"(?:log|train|training|output)\.(?:txt|log|out)",
)  # fmt: skip
_DEEPEST, _MOST_ENTRIES = 4, 20_000
_EVENTS = "events.out.tfevents."


def find_logs(folder: Path) -> list[Path]:
    """The log of a folder or of one within it, and the newest where there are several.

    Event files of one folder are parts of one log, so there may be many.

    Raises: InputError if there is none.
    """
    found = list(_walk(folder, 0, iter(range(_MOST_ENTRIES))))
    for pattern in _NAMES:
        named = [path for path in found if re.fullmatch(pattern, path.name)]
        if not named:
            continue
        newest = max(named, key=lambda path: (_modified(path), str(path)))
        if newest.name.startswith(_EVENTS):
            return sorted(path for path in named if path.parent == newest.parent)
        return [newest]
    raise InputError(
        f"{folder} holds no log: trainer_state.json, metrics.csv, *.wandb, events.out.tfevents.* or a file "
        "named as log.txt or metrics.jsonl was looked for; give the file itself"
    )


def _walk(folder: Path, depth: int, budget: Iterator[int]) -> Iterator[Path]:
    """Plain files of a folder and of those within it, without following links to folders."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(islice(found, _MOST_ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if next(budget, None) is None:
            return
        if entry.is_dir(follow_symlinks=False):
            if depth < _DEEPEST and not entry.name.startswith("."):
                yield from _walk(Path(entry.path), depth + 1, budget)
        elif os.path.isfile(entry.path):  # noqa: PTH113 - it takes no entry that cannot be looked at
            yield Path(entry.path)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
