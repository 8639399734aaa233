"""`python -m etude`, and the `etude` command."""

import atexit
import contextlib
import os
import sys

from etude.cli.main import main


def program() -> None:
    """Run a command, and end the process without taking its modules down, which takes torch half a second.

    A kill in that time would look like one in the middle of the work.
    """
    code = 0
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    program()
