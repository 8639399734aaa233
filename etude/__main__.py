"""`python -m etude`, and the `etude` command."""

import atexit
import contextlib
import os
import signal
import sys
from pathlib import Path


def program() -> None:
    """Run a command, and end the process without taking its modules down, which takes torch half a second.

    A kill in that time would look like one in the middle of the work.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing has begun that would have to be ended well.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    _leave_out_current_folder()
    from etude.cli.main import main

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


def _leave_out_current_folder() -> None:
    """Import no more from where `python -m` was called: what lies in that folder may be a stranger's.

    The imports above came before; the `etude` command and `python -P -m etude` import nothing from there.
    """
    with contextlib.suppress(OSError):  # the folder was removed
        here = Path.cwd()
        if not sys.flags.safe_path and sys.path[:1] == [str(here)] and Path(__file__).parents[1] != here:
            del sys.path[0]


if __name__ == "__main__":
    program()
