"""A run that is asked for things at chosen steps; as a program: recipe (JSON), runs, and requests (JSON) by step."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.control.mailbox import post
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
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


if __name__ == "__main__":
    requests = {int(step): values for step, values in json.loads(sys.argv[3]).items()}
    steer(recipe_from(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]), requests)
