"""The list of all runs: a row each, kept for as long as the files of the run are the same."""

import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.errors import EtudeError
from etude.recipe.schema import Recipe
from etude.records.events import plain
from etude.records.store import Run
from etude.report.figures import spread
from etude.report.summary import Summary, maker, status_word
from etude.ui.readings import Key, Readings, key_of
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library, Look, Place

_FORMAT = 2  # of the rows that are kept
_POINTS = 40
_PATIENCE_SECONDS = 0.25  # for all figures together; what is not made by then follows in a later answer
_MOST_AT_ONCE = 20  # runs without figures, beyond which no answer waits for any
_WRITE_SECONDS = 60.0  # between two writes, which wait for the disk of the training
_MOST_KEPT = 20_000
_LONGEST = 200  # characters of a name
_MOST_TAGS, _MOST_SOURCES = 20, 5
_FIGURES = (
    "metric", "metric_first", "lower_is_better", "last_loss", "gap", "step", "steps",
    "tokens_per_second", "wall_seconds", "created",
)  # fmt: skip


@dataclass(frozen=True)
class _Kept:
    """The row of a run whose files had this mark, and whose figures this key."""

    mark: str
    key: str
    row: dict[str, Any]


class Listing:
    """The rows of runs, of which those of unchanged files are kept, also in the cache of this user."""

    def __init__(self, readings: Readings) -> None:
        self._readings, self._turn = readings, threading.Lock()
        self._rows: dict[str, _Kept] = {}
        self._written, self._is_new = time.monotonic(), False
        self._read()
        readings.takers.append(self._take)

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
        look = library.look()
        found = {each: self._find(run, look.places[each]) for each, run in look.runs.items()}
        if sum(kept is None for kept in found.values()) > _MOST_AT_ONCE:
            patience_seconds = 0.0
        deadline = time.monotonic() + patience_seconds
        damaged, rows = dict(look.damaged), []
        for identity, run in look.runs.items():
            place, kept = look.places[identity], found[identity]
            try:
                row = kept.row if kept else self._new_row(run, place, max(deadline - time.monotonic(), 0.0))
                where = {"folder": place.folder, "sweep": place.sweep}
                rows.append({"id": identity, **row, **_now(row, run, place), **where})
            except EtudeError as error:
                damaged[run.name] = str(error)
        self._readings.begin()  # after all rows: the thread that makes figures takes turns with this one
        self._write()
        problems = [{"name": name, "problem": problem} for name, problem in damaged.items()]
        sweeps = _sweeps(look, rows)
        whole = {"version": version, "runs": rows, "sweeps": sweeps, "damaged": problems}
        return trim(whole, but=["runs"])

    def version(self, library: "Library") -> str:
        """A text that changes when a row may have changed."""
        return f"{library.version}-{self._readings.count}"

    def _find(self, run: Run, place: "Place") -> _Kept | None:
        """The row of a run as its files are, if one is kept; a newer heartbeat gives it another mark."""
        path = _path(run)
        kept = self._rows.get(path)
        if kept is None or kept.mark == place.mark:
            return kept
        if kept.key != _digest(key_of(run.path)):
            return None
        return self._keep(path, replace(kept, mark=place.mark))

    def _new_row(self, run: Run, place: "Place", patience_seconds: float) -> dict[str, Any]:
        """The row of a run whose files are new, or as it was, while figures are made.

        Raises: InputError if its folder is damaged.
        """
        if patience_seconds:
            self._readings.summary(run, patience_seconds)
        else:
            self._readings.queue(run)
        kept = self._rows.get(_path(run))
        return kept.row if kept else _bare_row(run, place)

    def _take(self, run: Run, key: Key, summary: Summary) -> None:
        """Keep the row of a run whose figures were made of files as they were."""
        self._keep(_path(run), _Kept("", _digest(key), trim(make_row(run, summary))))

    def _keep(self, path: str, kept: _Kept) -> _Kept:
        with self._turn:
            self._rows[path] = kept
            self._is_new = True
        return kept

    def _read(self) -> None:
        with contextlib.suppress(EtudeError, ValueError, TypeError, AttributeError):
            found = durable.read_json_object(_file(), follow=False)
            if (found.get("format"), found.get("maker")) == (_FORMAT, maker()):
                self._rows = {
                    path: _Kept(str(mark), str(key), dict(row))
                    for path, (mark, key, row) in found["rows"].items()
                }

    def _write(self) -> None:
        """Keep the rows for the next start, at times; a failure is no matter."""
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write the rows into the cache of this user if there are new ones; a failure is no matter."""
        with self._turn:
            if not self._is_new:
                return
            kept = list(self._rows.items())[-_MOST_KEPT:]
            rows = {path: [each.mark, each.key, each.row] for path, each in kept}
            self._written, self._is_new = time.monotonic(), False
        with contextlib.suppress(EtudeError, OSError):
            durable.make_folder(_file().parent)
            durable.write_json(_file(), {"format": _FORMAT, "maker": maker(), "rows": rows})


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


def _bare_row(run: Run, place: "Place") -> dict[str, Any]:
    """The row of a run whose figures are being made."""
    nothing = dict.fromkeys((
        *_FIGURES, "best_value", "best_step", "best_loss", "model", "data", "objective",
    ))  # fmt: skip
    return trim({
        **nothing, "name": run.name[:_LONGEST], "ended_early": False, "created": run.info["created"],
        "status": place.state or run.state, "findings": {}, "sparkline": [], "tags": [],
        "parent": _parent(run.info), "pending": True,
    })  # fmt: skip


def _now(row: Mapping[str, Any], run: Run, place: "Place") -> dict[str, Any]:
    """The state of a run that goes on and the age of its heartbeat, which change without the journal.

    Raises: InputError if its lease cannot be read.
    """
    if row["status"] not in ("running", "paused", "killed"):
        return {"heartbeat_age": None}
    age = max(time.time() - place.heartbeat, 0.0) if place.heartbeat else None
    return {"status": place.state or run.state, "heartbeat_age": age}


def _sweeps(look: "Look", rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for identity, folder in look.sweeps.items():
        states = [row["status"] for row in rows if row["sweep"] == identity]
        recipes = sum(not path.name.startswith(".") for path in (folder.path / "trials").glob("*.toml"))
        done, running = states.count("finished"), states.count("running")
        failed = states.count("failed")
        left = max(recipes - done - running - failed, 0)
        trials = {"finished": done, "running": running, "failed": failed, "left": left}
        found.append({"id": identity, "name": folder.path.name[:_LONGEST], "trials": trials})
    return found


def _path(run: Run) -> str:
    return str(run.path.absolute())


def _digest(key: Key) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _file() -> Path:
    return durable.cache_folder("pages") / "rows.json"
