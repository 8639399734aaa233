"""A run that goes on from a checkpoint of another, with changes."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etude.control.mailbox import who_asks
from etude.engine import fork as engine
from etude.engine.checkpoint import newest_valid
from etude.errors import DamageError, InputError
from etude.records.folder import step_of
from etude.records.store import Run, open_run
from etude.start import split_choice


def fork(given: str, changes: Mapping[str, Any] = MappingProxyType({}), runs: str | Path = "runs") -> Run:
    """Fork RUN, RUN@best, RUN@last or RUN@200; `etude.train(fork.recipe, Options(resume=fork))` goes on.

    RUN alone is its newest checkpoint that is whole, also while it goes on. changes: values by dotted key.

    Raises: InputError if there is no such checkpoint, or a key cannot change; StorageError.
    """
    name, which = split_choice(re.sub(r"@([0-9]{1,18})$", r"@step-\1", given))
    run = open_run(name, Path(runs))
    is_newest = name == given or which == "last"
    if is_newest:
        newest, _ = newest_valid(run.checkpoints, run.info["id"])
        which = newest.name if newest else ""
    elif which == "best":
        which = run.best["checkpoint"] if run.best else ""
    step = step_of(which)
    if step is None:
        raise InputError(f"run {run.name} has no such checkpoint yet; a fork goes on from one")
    try:
        return engine.fork(run, step, run.path.parent, changes=changes, who=who_asks())
    except DamageError:  # of a checkpoint that a run which goes on has just replaced by a newer one
        if not is_newest or (run.checkpoints / which / "manifest.json").exists():
            raise
        return fork(given, changes, runs)
