"""The list of all runs: a row each, kept for as long as the files of the run are the same."""

import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.errors import EtudeError, InputError
from etude.recipe.schema import Recipe
from etude.records.events import plain
from etude.records.store import Run
from etude.report.figures import spread
from etude.report.summary import Summary, maker, status_word
from etude.ui.readings import Key, Readings, key_of
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library

_POINTS = 40
_PATIENCE_SECONDS = 0.25  # for all figures together; what is not made by then follows in a later answer
_WRITE_SECONDS = 10.0
_MOST_KEPT = 20_000
_LONGEST = 200  # characters of a name
_MOST_TAGS, _MOST_SOURCES = 20, 5
_FIGURES = (
    "metric", "metric_first", "lower_is_better", "last_loss", "gap", "step", "steps",
    "tokens_per_second", "wall_seconds", "created",
)  # fmt: skip


class Listing:
    """The rows of runs, of which those of unchanged files are kept, also in the cache of this user."""

    def __init__(self, readings: Readings) -> None:
        self._readings, self._turn = readings, threading.Lock()
        self._rows: dict[str, tuple[str, dict[str, Any]]] = {}
        self._written, self._is_new = time.monotonic(), False
        self._read()

    def payload(
        self, library: "Library", since: str | None = None, patience_seconds: float = _PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """All rows with the version of the list, or the version alone if it is `since`.

        A row whose figures are not made yet has `pending` true and none of them; the version changes when
        they are there.
        """
        version = self.version(library)
        if since == version:
            return {"version": version}
        deadline = time.monotonic() + patience_seconds
        runs, damaged = library.runs(), library.damaged
        rows = []
        for identity, run in runs.items():
            place = library.place(identity)
            try:
                row = self.row(run, max(deadline - time.monotonic(), 0.0))
                rows.append({"id": identity, **row, "folder": place.folder, "sweep": place.sweep})
            except EtudeError as error:
                damaged[run.name] = str(error)
        self._write()
        problems = [{"name": name, "problem": problem} for name, problem in damaged.items()]
        sweeps = _sweeps(library, rows)
        return trim({"version": version, "runs": rows, "sweeps": sweeps, "damaged": problems})

    def version(self, library: "Library") -> str:
        """A text that changes when a row may have changed."""
        return f"{library.version}-{self._readings.count}"

    def row(self, run: Run, patience_seconds: float = 0.0) -> dict[str, Any]:
        """The row of a run. Raises: InputError if its folder is damaged."""
        key = _digest(key_of(run.path))
        with self._turn:
            known, row = self._rows.get(str(run.path.absolute()), ("", {}))
        if known != key:
            if not patience_seconds:
                self._readings.ask(run)
            summary = self._readings.summary(run, patience_seconds) if patience_seconds else None
            if summary is None:
                return {**row, **_now(run, row)} if row else _bare_row(run)
            row = make_row(Run(run.path), summary)
            if self._readings.is_current(run):
                self._keep(run, key, row)
        return {**row, **_now(run, row)}

    def _keep(self, run: Run, key: str, row: dict[str, Any]) -> None:
        with self._turn:
            self._rows[str(run.path.absolute())] = key, row
            self._is_new = True

    def _read(self) -> None:
        with contextlib.suppress(EtudeError, ValueError, TypeError, AttributeError):
            kept = durable.read_json_object(_file(), follow=False)
            if kept.get("maker") == maker():
                self._rows = {path: (str(key), dict(row)) for path, (key, row) in kept["rows"].items()}

    def _write(self) -> None:
        """Keep the rows for the next start, at times; a failure is no matter."""
        if not self._is_new or time.monotonic() - self._written < _WRITE_SECONDS:
            return
        self.keep()

    def keep(self) -> None:
        """Write the rows into the cache of this user; a failure is no matter."""
        with self._turn:
            rows = dict(list(self._rows.items())[-_MOST_KEPT:])
            self._written, self._is_new = time.monotonic(), False
        with contextlib.suppress(EtudeError, OSError):
            durable.make_folder(_file().parent)
            durable.write_json(_file(), {"maker": maker(), "rows": rows})


def make_row(run: Run, summary: Summary) -> dict[str, Any]:
    """The row of a run from its figures and its recipe."""
    curve = summary["validation_curve"] if len(summary["validation_curve"]) > 1 else summary["loss_curve"]
    row: dict[str, Any] = plain({
        "name": run.name[:_LONGEST],
        "status": summary["status"], "ended_early": status_word(summary) == "ended early",
        **{name: summary[name] for name in _FIGURES},
        "best_value": summary["metric_best"], "best_step": summary["metric_best_step"],
        "best_loss": summary["best_validation_loss"],
        "findings": {name: int(count) for name, count in summary["findings_by_severity"].items()},
        "sparkline": [value if math.isfinite(value) else None for value in spread(curve, _POINTS)],
        "parent": _parent(run.info), **_words(run.recipe),
    })  # fmt: skip
    return row


def model_words(recipe: Recipe) -> str:
    """The model of a recipe in a few words."""
    model = recipe.model
    if model.from_ is not None:
        path = Path(model.from_)
        return f"{path.parent.name}/{path.name}" if path.name.startswith("step-") else path.name
    return f"new {model.preset or model.kind}"


def _words(recipe: Recipe) -> dict[str, Any]:
    sources = [Path(each.path).name if each.path else str(each.source) for each in recipe.data.train]
    more = [f"and {len(sources) - _MOST_SOURCES:,} more"] if len(sources) > _MOST_SOURCES else []
    kinds = dict.fromkeys(part.train.objective for part in recipe.by_task().values())
    return {
        "model": model_words(recipe)[:_LONGEST],
        "data": ", ".join([*sources[:_MOST_SOURCES], *more])[:_LONGEST],
        "objective": ", ".join(kinds),
        "tags": [tag[:_LONGEST] for tag in recipe.records.tags[:_MOST_TAGS]],
    }


def _parent(info: Mapping[str, Any]) -> str | None:
    origin = info.get("origin") or {}
    return origin.get("run") or info.get("parent") or info.get("replays")


def _bare_row(run: Run) -> dict[str, Any]:
    """The row of a run whose figures are being made."""
    nothing = dict.fromkeys((
        *_FIGURES, "best_value", "best_step", "best_loss", "model", "data", "objective",
    ))  # fmt: skip
    row = {
        **nothing, "name": run.name[:_LONGEST], "ended_early": False, "created": run.info["created"],
        "status": run.state, "findings": {}, "sparkline": [], "tags": [], "parent": _parent(run.info),
        "pending": True,
    }  # fmt: skip
    return {**row, **_now(run, row)}


def _now(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a run that goes on and the age of its heartbeat, which change without the journal."""
    if row["status"] not in ("running", "paused", "killed"):
        return {"heartbeat_age": None}
    try:
        beat = run.lease.get("heartbeat")
    except InputError:
        beat = None
    return {"status": run.state, "heartbeat_age": None if beat is None else max(time.time() - beat, 0.0)}


def _sweeps(library: "Library", rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for identity, folder in library.sweeps().items():
        states = [row["status"] for row in rows if row["sweep"] == identity]
        recipes = sum(not path.name.startswith(".") for path in (folder.path / "trials").glob("*.toml"))
        done, running = states.count("finished"), states.count("running")
        failed = states.count("failed")
        left = max(recipes - done - running - failed, 0)
        trials = {"done": done, "running": running, "failed": failed, "left": left}
        found.append({"id": identity, "name": folder.path.name[:_LONGEST], "trials": trials})
    return found


def _digest(key: Key) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _file() -> Path:
    return durable.cache_folder("pages") / "rows.json"
