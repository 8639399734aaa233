"""Channels that messages are sent by: a web address, a program of the user's, and what apprise knows."""

import atexit
import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.notify.line import Line
from etude.notify.message import Message
from etude.notify.outcome import Channel, Outcome, Room, identify, judge
from etude.notify.request import UnansweredError, check_url, request
from etude.notify.variables import read_variables
from etude.recipe.notify import Notify

_SECONDS = 10.0
_PROGRAM_SECONDS = 30.0


def open_channels(settings: list[Notify]) -> list[Channel]:
    """Open the channels of a recipe.

    Raises: InputError for a variable that is missing or unusable, by its name, and without apprise's package.
    """
    return [_open(each) for each in settings]


def _open(settings: Notify) -> Channel:
    kinds: dict[str, Callable[[Notify, dict[str, str]], Channel]] = {
        "line": lambda _, found: Line(found["TOKEN"], found["TO"]),
        "webhook": Webhook,
        "command": Program,
        "apprise": Apprise,
    }
    return kinds[settings.channel](settings, read_variables(settings))


class Webhook:
    """A POST of JSON to a web address: text, title, kind, severity, run, step, figures, commands, id, time.

    Each try has the same Idempotency-Key; a receiver that does not know it may see a message twice, if an
    answer was lost. Source: the header as in draft-ietf-httpapi-idempotency-key-header.
    """

    def __init__(self, settings: Notify, found: dict[str, str], *, seconds: float = _SECONDS) -> None:
        check_url(found["URL"], settings.variables["URL"])
        self.identity = identify(found["URL"])
        self._url, self._seconds = found["URL"], seconds

    def send(self, message: Message, key: str) -> Outcome:
        values = {**message.to_dict(), "text": message.full}
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "etude"}
        body = json.dumps(values).encode()
        try:
            return judge(request("POST", self._url, headers=headers, body=body, seconds=self._seconds))
        except UnansweredError as error:
            return Outcome("later", str(error))

    def room(self) -> Room | None:
        return None


class Program:
    """A program of the user's that gets the message on its standard input; no shell reads anything of it.

    It runs in the user's home, and is ended with all that it started after a time. Exit code 0 is sent.
    """

    def __init__(self, settings: Notify, found: dict[str, str], *, seconds: float = _PROGRAM_SECONDS) -> None:
        name = settings.variables["PROGRAM"]
        try:
            self._words = shlex.split(found["PROGRAM"])
        except ValueError:
            self._words = []
        if not self._words or shutil.which(self._words[0]) is None:
            raise InputError(f"notify: the variable {name} names no program that can be run; give its path")
        self._words[0] = str(Path(str(shutil.which(self._words[0]))).absolute())
        self.identity, self._seconds = identify(found["PROGRAM"]), seconds

    def send(self, message: Message, key: str) -> Outcome:
        home = Path.home()
        try:
            process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd=home if home.is_dir() else "/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome("off", f"it cannot be started ({type(error).__name__})")
        _programs.add(process)
        try:
            process.communicate(message.full.encode() + b"\n", timeout=self._seconds)
        except subprocess.TimeoutExpired:
            return Outcome("refused", f"it was ended after {self._seconds:g} s")
        finally:
            _end(process)
            _programs.discard(process)
        code = process.returncode
        return Outcome("sent") if code == 0 else Outcome("refused", f"it ended with exit code {code}")

    def room(self) -> Room | None:
        return None


_programs: set[subprocess.Popen[bytes]] = set()  # that run now


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that runs, with all it started: its number is not reused before it is waited for."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@atexit.register
def _end_programs() -> None:
    """The threads that wait for programs do not outlive this process, so nor do those programs."""
    for process in list(_programs):
        _end(process)


class Apprise:
    """The services that apprise knows, by the addresses of a variable with blanks between them.

    An address that has a message gets it no second time, where others have to be tried again.
    """

    def __init__(self, settings: Notify, found: dict[str, str]) -> None:
        if find_spec("apprise") is None:
            raise InputError(
                'notify: the channel "apprise" needs a package that is not installed; run pip install '
                '"etude-workbench[notify]"'
            )
        import apprise

        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it writes addresses, tokens and all
        self.identity = identify(found["URLS"])
        self._services: list[Any] = []
        for number, url in enumerate(found["URLS"].split(), 1):
            service = apprise.Apprise()
            if not service.add(url):
                name = settings.variables["URLS"]
                raise InputError(
                    f"notify: address {number} of the variable {name} is none that apprise knows; see its "
                    "list at https://github.com/caronc/apprise"
                )
            self._services.append(service)
        self._have: tuple[str, set[int]] = ("", set())

    def send(self, message: Message, key: str) -> Outcome:
        if self._have[0] != key:
            self._have = (key, set())
        have = self._have[1]
        body = "\n".join([message.text, *message.commands])
        for index, service in enumerate(self._services):
            if index not in have and service.notify(body=body, title=message.title):
                have.add(index)
        missing = len(self._services) - len(have)
        return (
            Outcome("later", f"{missing} of {len(self._services)} did not take it")
            if missing
            else Outcome("sent")
        )

    def room(self) -> Room | None:
        return None
