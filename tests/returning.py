"""A run that is asked at step 9 to go back to step 4; as a program: recipe (JSON), runs, and where it is killed.

Killed `removing` checkpoints, `saving` the change, or `starting` the attempt that follows; or nowhere.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude import durable, session
from etude.control.mailbox import post
from etude.engine import checkpoint, keeper
from etude.recipe.course import Change
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.run import Training
from etude.start import Options

BACK = Change(4, "optim.learning_rate", 1e-3, "it jumps")


def ask_back(
    recipe: Recipe, runs: Path, when_asked: Callable[[], None] = lambda: None
) -> tuple[Training, str]:
    """Train to the end, with one request to go back; returns its id."""
    training, asked = Training(recipe, Options(runs=runs)), ""
    for step in training:
        if step.number == 9 and not asked:
            asked = "by another rank"
            if int(os.environ.get("RANK", "0")) == 0:
                asked = post(training.run, "back", step=4, key=BACK.key, value=BACK.value, reason=BACK.reason)
            when_asked()
    return training, asked


def _die_at(where: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os._exit(9)

    if where == "removing":
        remove = durable.remove_folder
        checkpoint.durable.remove_folder = lambda *given, **named: (remove(*given, **named), die())  # type: ignore
    elif where == "saving":
        keeper.checkpoints.verify_checkpoint = die  # type: ignore[assignment]
        checkpoint.durable.write_json = die  # type: ignore[assignment]
    elif where == "starting":
        session.write_start = die


if __name__ == "__main__":
    recipe = recipe_from(json.loads(Path(sys.argv[1]).read_text()))
    ask_back(recipe, Path(sys.argv[2]), lambda: _die_at(sys.argv[3]))
