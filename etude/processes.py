"""The start of another Python: with the import path of this one, never with the current folder.

`python -m` and `python -c` put the current folder before the standard library; a `json.py` in a folder that
came from a stranger would run.
"""

import os
import sys

# Of the variables that give a rank its place among others.
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ETUDE_RANKS_")


def python_command(module: str, *words: str) -> list[str]:
    """The command that runs a module of etude in another process."""
    return [sys.executable, "-P", "-m", module, *words]


def python_environment() -> dict[str, str]:
    """The environment in which that process finds the same modules as this one, and is no rank of its run."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PLACE)}
    return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
