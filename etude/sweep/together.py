"""The trials of a stack in one process: each a run of its own, and one pass for all that stand at a step."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.engine.loop import Step
from etude.engine.stack import Stack
from etude.errors import EtudeError
from etude.launch.ranks import RESUMABLE, Ended
from etude.recipe.load import load_recipe, read_recipe_text
from etude.run import Training
from etude.start import Options
from etude.sweep.stage import find_trial


@dataclass
class _Going:
    """A trial that is trained; `step`: the last that it made."""

    training: Training
    steps: Generator[Step]
    step: int = -1


def run_stack(paths: Sequence[Path], runs: Path, tell: Callable[[str], None]) -> list[Ended]:
    """Train the trials of recipe files to their ends, those that stand furthest back first.

    A run that is there is continued, one that is finished is left as it is. A trial that fails is told with
    its error, and the others go on. Raises: what is no error of a trial, as an interrupt, for which all stop.
    """
    shared = Stack()
    ended = [Ended(0) for _ in paths]
    going: dict[int, _Going] = {}
    with contextlib.ExitStack() as closing:
        for place, path in enumerate(paths):
            run = find_trial(runs, path)
            if run is not None and not run.is_unfinished:
                ended[place] = Ended(0, run=run)
                continue
            text = None if run else read_recipe_text(path)
            options = Options(
                runs=runs, resume=run, recipe_text=text, gradients=shared.add_gradients, has_report=False
            )  # fmt: skip
            training = Training(run.recipe if run else load_recipe(path), options)
            going[place] = _Going(training, iter(training))
            closing.callback(_stop, going[place])
        while going:
            least = min(each.step for each in going.values())
            for place, each in [(place, each) for place, each in going.items() if each.step == least]:
                try:
                    each.step = next(each.steps).number
                except StopIteration:
                    ending = going.pop(place).training.ending
                    code = RESUMABLE if ending.is_resumable else 0
                    ended[place] = Ended(code, ending.reason, each.training.run, ending.was_asked)
                except EtudeError as error:
                    del going[place]
                    tell(f"error: {paths[place].stem}: {error}")
                    ended[place] = Ended(1, str(error))
    return ended


def _stop(going: _Going) -> None:
    """End a trial that an error of another kind leaves in the middle, as an interrupt of it alone would."""
    with contextlib.suppress(KeyboardInterrupt, StopIteration):
        going.steps.throw(KeyboardInterrupt)
