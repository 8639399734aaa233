"""etude: a training workbench for code language models.

load_recipe(path, overrides)   a checked recipe
train(recipe, ...)             run it to its end
Training(recipe, Options(...)) the same as an iterator of steps, with one's own module, loss and metrics
Metric(function, lower_is_better=True)  a metric of one's own, and which way is better
logits(model, batch)           what a language model says of each next token, for one's own loss and metrics
open_run(name)                 a run to read; in a notebook it shows itself
fork("RUN@best", changes)       a run that goes on from a checkpoint of another
restore(mirror, runs)          the folder of a run, made again from its mirror
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Metric", "Options", "Training", "fork", "load_recipe", "logits", "open_run", "restore", "train"]

if TYPE_CHECKING:
    from etude.control.restore import restore
    from etude.forking import fork
    from etude.own import Metric, logits
    from etude.recipe.load import load_recipe
    from etude.records.store import open_run
    from etude.run import Training
    from etude.run import run_recipe as train
    from etude.start import Options

_HOMES = {
    "Metric": ("etude.own", "Metric"),
    "fork": ("etude.forking", "fork"),
    "Options": ("etude.start", "Options"),
    "Training": ("etude.run", "Training"),
    "load_recipe": ("etude.recipe.load", "load_recipe"),
    "logits": ("etude.own", "logits"),
    "open_run": ("etude.records.store", "open_run"),
    "restore": ("etude.control.restore", "restore"),
    "train": ("etude.run", "run_recipe"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import etude` costs nothing."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
