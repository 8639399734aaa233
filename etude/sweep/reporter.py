"""The report of a sweep that goes on, made by processes of their own."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from etude.processes import python_command, python_environment
from etude.text import shorten

DAMAGED, NOTE = "damaged   ", "note: "  # how lines begin that the command for a report says
_REPORT_SECONDS = 60.0  # between reports while trials go on


class Reporter:
    """The report of a sweep, made by processes of their own: now and then, and once all trials have ended."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._words = ["sweep", "report", str(path), "--folder", str(folder)]
        self._file = folder / "report" / "report.md"
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = time.monotonic()

    def renew(self) -> None:
        """Begin one, if the last began long enough ago and has ended."""
        is_running = self._process is not None and self._process.poll() is None
        if not is_running and time.monotonic() - self._begun > _REPORT_SECONDS:
            if self._process is not None:
                self._process.communicate()  # which closes its pipe
            self._process, self._begun = self._start(), time.monotonic()

    def finish(self, tell: Callable[[str], None]) -> bool:
        """Make the last one, and tell where it is, or why there is none; False if it is not whole."""
        if self._process is not None:
            self._process.communicate()
        last = self._start()
        _, said = last.communicate()
        lines = said.decode("utf-8", "replace").splitlines()
        damaged = [line for line in lines if line.startswith(DAMAGED)]
        for line in damaged:
            tell(line)
        if last.returncode and not damaged:
            tell(f"no report: {shorten(' '.join(lines))}")
        else:
            notes = [line for line in lines if line.startswith(NOTE)]
            tell("; ".join([f"report    {self._file}", *notes]))
        return not last.returncode

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            python_command("etude", *self._words), env=python_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip
