"""The start of another Python: with the import path of this one, never with the current folder.

`python -m` and `python -c` put the current folder before the standard library; a `json.py` in a folder that
came from a stranger would run.
"""

import os
import sys


def python_command(module: str, *words: str) -> list[str]:
    """The command that runs a module of etude in another process."""
    return [sys.executable, "-P", "-m", module, *words]


def python_environment() -> dict[str, str]:
    """The environment in which that process finds the same modules as this one."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
