"""A run in a session of its own, which outlives the process that started it."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from etude import durable
from etude.errors import EtudeError
from etude.processes import python_command, python_environment
from etude.records.folder import require_runs_folder
from etude.records.store import Run, list_runs

OUTPUT = "output.txt"  # in the run folder: what such a run printed
_CHUNK_BYTES = 1 << 16


class Detached:
    """A command that trains a run under a folder, from its start until the run has begun.

    What it prints is kept in output.txt of the run folder.
    """

    def __init__(self, runs: Path, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process, self._runs, self._output, self._shown = process, runs, output, 0

    @classmethod
    def start(cls, words: Sequence[str], runs: Path) -> Self:
        """Start a command of etude in a session of its own. Raises: InputError, StorageError."""
        require_runs_folder(runs)
        durable.make_folder(runs)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".output", dir=runs)
        with os.fdopen(descriptor, "wb") as file:
            process = subprocess.Popen(
                python_command("etude", *words), env=python_environment(), stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        return cls(runs, process, Path(name))

    def begun(self) -> Run | None:
        """The run, once the process, or one that it started, holds it and has begun it."""
        run = self._find()
        if run is not None and self._output.exists():
            self._output.rename(run.path / OUTPUT)
        return run

    def lines(self) -> list[str]:
        """The whole lines that it printed since the last look."""
        with contextlib.suppress(FileNotFoundError), self._output.open("rb") as file:
            file.seek(self._shown)
            chunk = file.read(_CHUNK_BYTES)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            self._shown += len(whole)
            return whole.decode("utf-8", "replace").splitlines()
        return []

    def forget(self) -> None:
        """Remove what it printed, of one that ended before its run had begun."""
        self._output.unlink(missing_ok=True)

    def _find(self) -> Run | None:
        import psutil

        pids = {self.process.pid}
        with contextlib.suppress(psutil.Error):
            pids.update(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))
        for run in reversed(list_runs(self._runs)):
            with contextlib.suppress(EtudeError):
                has_begun = all((run.path / name).exists() for name in ("journal.jsonl", "environment.json"))
                if has_begun and run.state == "running" and run.lease.get("pid") in pids:
                    return run
        return None
