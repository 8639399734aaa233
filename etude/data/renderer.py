"""A chat template at work in a process of its own; `sandbox.py` is the other end."""

import contextlib
import json
import re
import signal
import subprocess
import threading
import weakref
from typing import Any

from etude.data.tokenize import unmark
from etude.data.turns import GENERATION, Message
from etude.errors import InputError
from etude.processes import python_command, python_environment

# The first messages of a conversation, None for all, and whether the start of an answer follows them.
Part = tuple[int | None, bool]


class Renderer:
    """A template with its variables; the process starts at the first question, and again after a refusal.

    limit_seconds: for one conversation. today: the day (YYYY-MM-DD) that the template may write; None for
    the clock.
    """

    def __init__(
        self, template: str, variables: dict[str, str], *, limit_seconds: float, today: str | None
    ) -> None:
        self._limit_seconds = limit_seconds
        self._surroundings = {
            "template": template, "variables": variables, "limit_seconds": limit_seconds, "today": today,
        }  # fmt: skip
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def render(
        self, messages: list[Message], parts: list[Part], name: str
    ) -> tuple[str, list[tuple[int, str]]]:
        """The text of the first part; of each other the length it shares with the first, and its rest.

        Raises: InputError if the template refuses `name`, takes too long, or breaks.
        """
        answer = self._ask(messages, parts, name)
        if "error" in answer:
            reason = " ".join(unmark(answer["error"]).split())
            raise InputError(f'{name}: the chat template refuses it ({reason}); use data.template = "plain"')
        return answer["text"], [(shared, rest) for shared, rest in answer["parts"]]

    def try_render(self, messages: list[Message], name: str) -> str | None:
        """The text of messages; None if the template refuses them. Raises: InputError as `render` else."""
        answer = self._ask(messages, [(None, False)], name)
        return None if "error" in answer else str(answer["text"])

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            _end(self.process)
            self.process = None

    def _ask(self, messages: list[Message], parts: list[Part], name: str) -> dict[str, Any]:
        request = json.dumps({"messages": messages, "parts": parts}).encode() + b"\n"
        with self._lock:
            answer: dict[str, Any] = json.loads(self._exchange(request, name))
        return answer

    def _exchange(self, request: bytes, name: str) -> bytes:
        try:
            self.process = process = self.process or self._start()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise BrokenPipeError
            return line
        except BaseException as error:
            code = self.process.wait() if self.process and isinstance(error, OSError) else 0
            self.close()
            if not isinstance(error, OSError):
                raise
            slow = f"takes over {self._limit_seconds:g} s"
            raise InputError(
                f"the chat template {slow if code == -signal.SIGALRM else 'breaks its process'} on {name}; "
                'it may be broken or hostile: use data.template = "plain", or another tokenizer'
            ) from None

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            python_command("etude.data.sandbox"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=python_environment(), start_new_session=True,
        )  # fmt: skip
        weakref.finalize(self, _end, process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._surroundings).encode() + b"\n")
        return process


def split_generation(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without the marks of {% generation %}, and the places that were between them."""
    pieces = re.split(f"[{''.join(GENERATION)}]", text)
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return "".join(pieces), [(ends[index], ends[index + 1]) for index in range(1, len(pieces), 2)]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
