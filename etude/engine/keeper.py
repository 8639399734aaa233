"""The checkpoints of a run: written in the background, the best pointed at, old ones removed."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.engine.checkpoint import Snapshot
from etude.errors import StorageError
from etude.recipe.schema import Checkpoint
from etude.records import events
from etude.records.store import Run


class Keeper:
    """Writes snapshots in one background thread, then points best.json at the best and removes old ones.

    Of a model in pieces each rank writes its own, and rank 0 the rest. A failure in the thread is raised at
    the next `collect`. All files but the snapshot's own are written by the thread that calls.

    saved_step, saved_time  of the last checkpoint, on every rank; seconds of the monotonic clock
    write_seconds           of the last checkpoint that is on disk; None before the first, and elsewhere
    on_disk                 called when a checkpoint is, and recorded
    """

    write_seconds: float | None = None
    on_disk: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, run: Run, recipe: Checkpoint, tell: Callable[[events.Event], None]) -> None:
        self._run, self._recipe, self._tell = run, recipe, tell
        self.note(0)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pool.submit(int)  # so that its thread starts now, while there is memory for it
        self._pending: Future[events.CheckpointSaved | None] | None = None
        self._is_left = threading.Event()
        self._best_on_disk = run.best
        self._best: dict[str, Any] | None = None

    def note(self, step: int) -> None:
        """Note that a step is saved, here or by rank 0."""
        self.saved_step, self.saved_time = step, time.monotonic()

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Take a snapshot, for which training waits, and have it written, for which it does not."""
        started = time.perf_counter()
        self.collect(wait=True)
        snapshot = take()
        blocking_seconds = max(time.perf_counter() - started, 0.0)
        self._best = snapshot.progress.best
        self._pending = self._pool.submit(self._write, snapshot, blocking_seconds)

    def collect(self, *, wait: bool) -> None:
        """Note a checkpoint that has been written, if there is one. Raises: StorageError, DamageError."""
        if self._pending is None or not (wait or self._pending.done()):
            return
        pending, self._pending = self._pending, None
        saved = pending.result()
        if saved is None:  # rank 0 has the rest to do
            return
        self.write_seconds = saved.write_seconds
        self.point_at(self._best)
        self._tell(saved)
        try:
            checkpoints.retain(
                self._run.checkpoints,
                keep=self._recipe.keep,
                keep_at=self._recipe.keep_at,
                best=self._best["checkpoint"] if self._best else None,
            )
        except StorageError as error:  # nothing is lost by what is kept too long
            advice = "the next checkpoint tries again; remove it by hand once the run has ended"
            self._tell(events.Finding(saved.step, "an old checkpoint was not removed", str(error), advice))
        self.on_disk()

    def point_at(self, best: dict[str, Any] | None) -> None:
        """Bring best.json in line with the best checkpoint, which is on disk, or not yet there."""
        path = self._run.path / "best.json"
        if best is None:
            durable.remove_file(path)  # as after a return to a step before the first evaluation
        elif best != self._best_on_disk:
            durable.write_json(path, best)
        self._best_on_disk = best

    def close(self) -> None:
        """Wait for the thread; a failure nobody collected is dropped: that checkpoint does not exist."""
        self._is_left.set()  # other ranks may have ended before they wrote their rows
        self._pool.shutdown(wait=True)

    def _write(self, snapshot: Snapshot, blocking_seconds: float) -> events.CheckpointSaved | None:
        started = time.perf_counter()
        size = checkpoints.write_checkpoint(self._run.checkpoints, snapshot, self._is_left.is_set)
        if snapshot.rank:
            return None
        seconds = max(time.perf_counter() - started, 0.0)
        return events.CheckpointSaved(
            snapshot.progress.step, snapshot.name, size, round(blocking_seconds, 4), round(seconds, 4),
            snapshot.journal._asdict() if snapshot.journal else None,
        )  # fmt: skip
