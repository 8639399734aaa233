"""A run that is asked for things at chosen steps; as a program: recipe (JSON), runs, and requests (JSON) by step.

A run that is stopped goes on until it is finished. More runs of the recipe may follow, each as runs and
requests: the ranks are started once for all.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.control.mailbox import post
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Step
from etude.run import Training
from etude.start import Options

Asked = Mapping[int, Sequence[dict[str, Any]]]  # values of requests, by the step after which they are made


def steer(recipe: Recipe, runs: Path, asked: Asked) -> Training:
    """Train until the run ends; each request is made once, also where the run goes on from before it."""
    training, left = Training(recipe, Options(runs=runs)), dict(asked)
    for step in training:
        for values in left.pop(step.number, ()):
            if int(os.environ.get("RANK", "0")) == 0:
                post(training.run, **values)
    return training


def steer_to_end(recipe: Recipe, runs: Path, asked: Asked) -> Training:
    """Train in attempt after attempt until the run is finished; a step that is made again asks for nothing."""
    left = dict(asked)
    while (training := steer(recipe, runs, left)).ending.is_resumable:
        made = [each.event.step for each in training.run.ledger().entries if isinstance(each.event, Step)]
        left = {step: values for step, values in left.items() if step > max(made)}
    return training


if __name__ == "__main__":
    recipe = recipe_from(json.loads(Path(sys.argv[1]).read_text()))
    for runs, requests in zip(sys.argv[2::2], sys.argv[3::2]):
        steer_to_end(recipe, Path(runs), {int(step): values for step, values in json.loads(requests).items()})
