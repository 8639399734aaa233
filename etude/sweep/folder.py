"""A sweep folder: recipes of the trials, their runs and logs. Its state is that of the runs alone.

SWEEP/sweep.toml    the file as given last
SWEEP/trials/       the recipe of each trial
SWEEP/runs/         a run for each trial that was begun
SWEEP/logs/         what the process of each trial said
SWEEP/decisions.jsonl  what the sweep decided itself, as the trials that a search chose
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude import durable
from etude.errors import InputError, StorageError
from etude.recipe.load import diff, load_recipe, recipe_hash, to_toml
from etude.records.folder import list_checkpoints, step_of
from etude.records.lease import holder, is_locked, read_lease, write_lease
from etude.records.store import Run
from etude.sweep.decisions import FILE
from etude.sweep.grid import Sweep, Trial
from etude.text import plural, shorten

_LOG_BYTES = 1 << 16
_FULL_BYTES = 1 << 16  # free, in which not even an error fits surely
_NAMED = 3  # trials, where some changed


@dataclass(frozen=True)
class TrialState:
    """A trial as its run folder tells it.

    steps  of its newest checkpoint
    """

    run: Run
    steps: int

    @property
    def is_finished(self) -> bool:
        """True if nothing is left to do for it."""
        return not self.run.is_unfinished

    @property
    def figure(self) -> str:
        """The figure of its best checkpoint, for a line of words."""
        best = self.run.best
        return f"{best.get('metric', 'best')} {best['value']:.4g} " if best else ""

    @property
    def is_settled(self) -> bool:
        """True if no process holds its run: one that was just forked is held until it is whole."""
        return not is_locked(self.run.path)


@dataclass
class SweepFolder:
    """A folder that one sweep lives in."""

    path: Path
    _known: dict[str, str] = field(default_factory=dict)  # the recipe hash of each run, which never changes

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    def recipe(self, name: str) -> Path:
        """The recipe file of a trial."""
        return self.path / "trials" / f"{name}.toml"

    def log(self, name: str) -> Path:
        """The file that holds what the processes of a trial said."""
        return self.path / "logs" / f"{name}.log"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder as the only one that starts trials.

        Raises: InputError if another process does, or a part of it is a link, a pipe or another user's;
        StorageError.
        """
        self._require_own()
        for folder in (self.path, self.path / "trials", self.runs, self.path / "logs"):
            durable.make_folder(folder)
        descriptor = durable.open_lock(self.path / ".lock")
        try:
            if not durable.lock(descriptor, self.path / ".lock"):
                raise InputError(
                    f"sweep folder {self.path} is in use by {holder(self._lease())}; wait for it or stop it, "
                    "or give another --folder"
                )
            write_lease(self.path, "running")
            yield
            with contextlib.suppress(StorageError):  # the work is done, and the lock tells that it ended
                write_lease(self.path, "stopped")
        finally:
            os.close(descriptor)

    def write(self, sweep: Sweep, *, added: Collection[str] = (), accept: bool = False) -> list[str]:
        """Write the recipes of the trials; returns sentences on what changed since they were written first.

        added: names of trials that the sweep itself adds, which may come and go. accept: take changes over.
        Raises: InputError that names them, before anything is written, if not.
        """
        changes = self._changes(sweep.trials, added)
        if changes and not accept:
            raise InputError(
                f"the sweep has changed since {self.path} was begun: {'; '.join(changes)}; bring it back, "
                "give another --folder, or take the changes over with --accept"
            )
        known = {path.stem for path in self._recipes()}
        for name in known - {trial.name for trial in sweep.trials} - {*added}:
            durable.remove_file(self.recipe(name))
        kept = known if self._is_begun and not changes else set()
        self.add([trial for trial in sweep.trials if trial.name not in kept])
        durable.write_file(self.path / "sweep.toml", sweep.text.encode())
        return changes

    def add(self, trials: Sequence[Trial]) -> None:
        """Write the recipes of trials."""
        for trial in trials:
            durable.write_file(self.recipe(trial.name), to_toml(trial.recipe).encode())

    def read(self, trials: Sequence[Trial]) -> dict[str, TrialState]:
        """The state of each trial that has a run: of several the finished one, else the newest."""
        wanted = {recipe_hash(trial.recipe): trial.name for trial in trials}
        found: dict[str, TrialState] = {}
        for run in sorted(self._new_runs(wanted), key=lambda run: run.info["created"]):
            name = wanted[self._known[run.name]]
            if name not in found or not found[name].is_finished:
                steps = [step_of(path.name) or 0 for path in list_checkpoints(run.checkpoints)]
                found[name] = TrialState(run, max(steps, default=0))
        return found

    def last_error(self, name: str, trial: str = "") -> str:
        """The last error in the log of a trial; `trial`: of another one that was trained in its process."""
        lines: list[str] = []
        with contextlib.suppress(InputError), durable.open_plain(self.log(name), follow=False) as log:
            log.seek(max(os.fstat(log.fileno()).st_size - _LOG_BYTES, 0))
            lines = log.read(_LOG_BYTES).decode("utf-8", "replace").splitlines()
        for start in (f"error: {trial or name}: ", "error: ")[: 1 if trial else 2]:
            if found := [line for line in lines if line.startswith(start)]:
                return shorten(found[-1].removeprefix(start))
        if lines and not trial:
            return shorten(lines[-1])
        is_full = shutil.disk_usage(self.path).free < _FULL_BYTES
        return f"it said nothing{', as the disk is full; make room for it' * is_full}"

    def _require_own(self) -> None:
        for folder in (self.path / "trials", self.runs, self.path / "logs", self.path / "report"):
            durable.check_own_folder(folder)
        for name in ("sweep.toml", "lease.json", ".lock", FILE):
            durable.check_own_file(self.path / name)
        for folder in (self.path / "trials", self.path / "logs"):
            for path in folder.iterdir() if folder.is_dir() else ():
                durable.check_own_file(path)
        for path in self.runs.iterdir() if self.runs.is_dir() else ():
            if path.is_symlink():
                durable.check_own_folder(path)

    def _new_runs(self, wanted: dict[str, str]) -> Iterator[Run]:
        with os.scandir(self.runs) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        for name in names:
            run = Run(self.runs / name)
            if name not in self._known:
                with contextlib.suppress(InputError):  # no run, or a damaged one
                    self._known[name] = str(run.info["recipe_hash"])
            if self._known.get(name) in wanted:
                yield run

    @property
    def _is_begun(self) -> bool:
        """True once all recipes were written: the sweep file is the last."""
        return durable.is_plain(self.path / "sweep.toml", follow=False)

    def _recipes(self) -> list[Path]:
        return [path for path in (self.path / "trials").glob("*.toml") if not path.name.startswith(".")]

    def _changes(self, trials: Sequence[Trial], added: Collection[str]) -> list[str]:
        """Differences of the trials from those that the folder was begun for, in words."""
        known, new, changed = {path.stem for path in self._recipes()}, [], []
        if not (known and self._is_begun):
            return []
        for trial in trials:
            if trial.name not in known:
                new += [trial.name] if trial.name not in added else []
                continue
            before = load_recipe(self.recipe(trial.name))
            if recipe_hash(before) != recipe_hash(trial.recipe):
                keys = ", ".join(list(diff(before, trial.recipe))[:_NAMED])
                changed.append(f"{trial.name} has another {keys}")
        gone = sorted(known - {trial.name for trial in trials} - {*added})
        sentences = [*changed[:_NAMED]]
        if len(changed) > _NAMED:
            sentences.append(f"{len(changed) - _NAMED:,} more have changed")
        if new:
            sentences.append(f"{plural(len(new), 'trial')} new, as {new[0]}")
        if gone:
            sentences.append(f"{plural(len(gone), 'trial')} gone, as {gone[0]}")
        return sentences

    def _lease(self) -> dict[str, object]:
        try:
            return read_lease(self.path)
        except InputError:
            return {}
