"""What a function answers in a process of its own, which it may confine."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def outcome(function: Callable[[], Any]) -> Any:
    """The plain value that a function returns; the error that it raised as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        # A room has few descriptors; those of the process that tests are closed, as a start would close them.
        answers_to = os.dup2(write, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        try:
            answer = json.dumps(function())
        except BaseException:
            answer = json.dumps(traceback.format_exc())
        os.write(answers_to, answer.encode())
        os._exit(0)
    os.close(write)
    with open(read) as answers:
        text = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else f"ended with {status}"
