"""The keys of the live view: each leaves a request in the mailbox of the run, as the commands do."""

import array
import atexit
import contextlib
import fcntl
import math
import os
import select
import signal
import termios
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from etude.control.mailbox import post
from etude.control.signals import at_exit
from etude.errors import EtudeError
from etude.records.store import Run

ACTIONS = {"p": "pause", "s": "stop", "c": "checkpoint", "e": "evaluate"}
LINE = "keys: p pause or resume, s stop, c checkpoint, e evaluate, ? more"
HELP = "p saves and waits for p; s saves and ends; c saves; e measures; set, sample and note are commands"
OFF = "the keys are off: text was typed, which is left for the shell"
_ALONE_SECONDS = 0.3  # a key is alone; faster than this come words, pasted lines and arrows
_LOOK_SECONDS = 0.2
_LINE_SECONDS, _HELP_SECONDS = 4.0, 20.0
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Keys:
    """Reads the keys of a run in a thread, while it is open and this process has the terminal of stdin.

    Several characters at once are text, such as the next command: it is left unread, and the keys are off.

    tell: shows a line in the picture; "" shows none
    """

    def __init__(self, run: Run, tell: Callable[[str], None]) -> None:
        self._run, self._tell = run, tell
        self._terminal: _Terminal | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="keys", daemon=True)
        self._is_first = True
        self._until = 0.0  # the moment at which the line is that of the keys again

    def open(self) -> None:
        """Begin to read, in the main thread and on a terminal of this session; else there are no keys."""
        if threading.current_thread() is threading.main_thread() and is_foreground(0) is not None:
            self._terminal = _Terminal(0)
            self._thread.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._closed.set()
        if self._terminal is None:
            return
        self._terminal.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _read_on(self) -> None:
        assert self._terminal is not None
        # A read that comes too late, in the background, then fails in place of stopping the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN, signal.SIGTTOU})
        try:
            while not self._closed.is_set():
                if not self._terminal.take():  # in the background: another look after a while
                    self._closed.wait(_LOOK_SECONDS)
                elif not self._read(self._terminal):
                    self._terminal.close()
                    self._tell(OFF)
                    return
        except (OSError, termios.error):  # the terminal has gone
            self._terminal.close()

    def _read(self, terminal: "_Terminal") -> bool:
        """Wait a moment for a key, and act; False if text is there."""
        if self._is_first:  # what was typed before the view is not meant for it
            self._is_first = False
            return not terminal.count()
        if time.monotonic() > self._until:
            self._say(LINE)
        if terminal.wait() and not self._closed.wait(_ALONE_SECONDS):
            if terminal.count() > 1:
                return False
            self._act(terminal.read())
        return True

    def _act(self, key: str) -> None:
        if key == "?":
            self._say(HELP, _HELP_SECONDS)
        elif action := ACTIONS.get(key):
            if key == "p" and self._run.state == "paused":
                action = "resume"
            try:
                post(self._run, action, channel="view")
                self._say(f"asked to {action}", _LINE_SECONDS)
            except EtudeError as error:
                self._say(str(error).splitlines()[0], _HELP_SECONDS)

    def _say(self, line: str, seconds: float = math.inf) -> None:
        self._until = time.monotonic() + seconds
        self._tell(line)


def is_foreground(descriptor: int) -> bool | None:
    """True if this process may read the terminal that a descriptor is; None if it is none of this session."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return None


class _Terminal:
    """A terminal that gives each key at once and shows none; it is as it was whenever others have it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None  # settings, while ours hold
        self._turn = threading.RLock()
        self._is_closed = False
        self._handlers: dict[int, Any] = {}
        _open.append(self)
        at_exit.append(self.close)
        atexit.register(self.close)
        self._handle(signal.SIGTSTP, self._stop)
        for number in _ENDS:
            self._handle(number, self._end)

    def take(self) -> bool:
        """Set it, if this process is in the foreground; others may have set it since."""
        with self._turn:
            if self._is_closed or not is_foreground(self._descriptor):
                return False
            settings = termios.tcgetattr(self._descriptor)
            if settings[3] & (termios.ICANON | termios.ECHO):
                self._before = self._before or termios.tcgetattr(self._descriptor)
                settings[3] &= ~(termios.ICANON | termios.ECHO)
                settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
                # Now: the other ways wait for output, or drop what was typed.
                termios.tcsetattr(self._descriptor, termios.TCSANOW, settings)
            return True

    def wait(self) -> bool:
        """Wait a moment for keys; True if there are some. Raises: OSError if the terminal has gone."""
        if not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
            return False
        if not self.count() and self._before is not None:
            raise OSError("the terminal has hung up")
        return True

    def count(self) -> int:
        """The characters that can be read. Raises: OSError if the terminal has gone."""
        number = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, number)
        return number[0]

    def read(self) -> str:
        """One character; none if the terminal was closed, or given to others, in the meantime."""
        with self._turn:
            if self._before is None or not is_foreground(self._descriptor) or not self.count():
                return ""
            return os.read(self._descriptor, 1).decode("ascii", "replace")

    def close(self) -> None:
        """Leave it as it was; may be called again, and from any thread."""
        with self._turn:
            self._is_closed = True
            self._give_back()
            if self in _open:
                _open.remove(self)
                at_exit.remove(self.close)
                atexit.unregister(self.close)
            if threading.current_thread() is threading.main_thread():
                self.forget()

    def forget(self) -> None:
        """Handle no signal any more."""
        while self._handlers:
            number, handler = self._handlers.popitem()
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.SIG_DFL)

    def _give_back(self) -> None:
        before, self._before = self._before, None
        if before is not None and is_foreground(self._descriptor):
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSANOW, before)

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        """Handle a signal that nobody else does."""
        if signal.getsignal(number) is signal.SIG_DFL:
            self._handlers[number] = handler
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stop, as Ctrl-Z asks, with the terminal as it was; the thread takes it again."""
        with self._turn:
            self._give_back()
            with contextlib.suppress(OSError):
                os.write(2, b"\x1b[?25h")  # the cursor, which the picture hides
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # here it waits for SIGCONT
            signal.signal(number, self._stop)
            if is_foreground(self._descriptor):
                with contextlib.suppress(OSError):
                    os.write(2, b"\x1b[?25l")

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.close()
        with contextlib.suppress(OSError):
            os.write(2, b"\x1b[?25h")
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


_open: list[_Terminal] = []


def _forget() -> None:
    """Leave terminal and signals to the process that this one was forked from."""
    while _open:
        terminal = _open.pop()
        atexit.unregister(terminal.close)
        terminal.forget()
    at_exit.clear()


os.register_at_fork(after_in_child=_forget)
