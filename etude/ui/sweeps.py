"""The page of a sweep: its trials, heat map, parallel coordinates, cost, standing and documents."""

import html
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.errors import InputError
from etude.records.events import plain
from etude.report.html import to_body
from etude.report.wording import duration
from etude.sweep.begun import read_begun
from etude.sweep.cells import find_runs_of
from etude.sweep.decisions import Decisions
from etude.sweep.deliverables import make_deliverables
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import outline
from etude.sweep.layout import horizon_of, key_title
from etude.sweep.recommend import cost_front
from etude.sweep.sections import write_sections
from etude.text import plural
from etude.ui.programs import Programs, problem_of
from etude.ui.readings import Key, key_of
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library

_REST = (
    20.0  # times the seconds that the results took pass before those of a sweep that goes on are made anew
)
_LARGE, _MANY = 32 << 20, 300  # bytes of journals, and trials, that another process reads
_DOCUMENT_BYTES = 16 << 20
_WIDE = 30  # the largest value over the smallest, from which on an axis is logarithmic
_FINAL = ("finished", "ended early")


@dataclass(frozen=True)
class _Made:
    """The results of a sweep as its files were, and its report as Markdown."""

    key: Key
    values: dict[str, Any]
    report: str
    took: float
    at: float


class Sweeps:
    """The pages of sweeps, each kept for as long as the files of its runs are the same."""

    def __init__(self, programs: Programs) -> None:
        self._programs, self._turn = programs, threading.Lock()
        self._made: dict[Path, _Made] = {}

    def page(self, library: "Library", identity: str) -> dict[str, Any]:
        """The page of a sweep. Raises: InputError if its file is damaged; MissingError."""
        folder = library.sweep(identity)
        file, _, _ = outline(folder.path / "sweep.toml")
        made = self._results(folder)
        ids = {
            run.path.name: each
            for each, run in library.runs().items()
            if library.place(each).sweep == identity
        }
        trials = [_trial(each, ids, made.values["metric"]) for each in made.values.get("trials", [])]
        final = [each for each in trials if each["is_final"] and each["value"] is not None]
        sign = -1 if made.values.get("lower_is_better") else 1
        points = [(each["cost_seconds"] or 0.0, each["value"]) for each in final]
        comparable = made.values.get("same_validation_rows") is not False
        return trim(plain({
            "id": identity, "name": file.name, "purpose": file.purpose, "metric": made.values["metric"],
            "lower_is_better": made.values.get("lower_is_better"), "trials": trials,
            "counts": _counts(trials), "axes": _axes(trials), "heat": _heat(trials, sign),
            "front": [final[place]["name"] for place in cost_front(points, sign)] if comparable else [],
            "best": made.values.get("best"), "worth": made.values.get("worth", ""),
            "standing": made.values.get("models", {}),
            "same_validation_rows": made.values.get("same_validation_rows"),
            "recommendations": made.values.get("recommendations", []),
            "candidates": made.values.get("candidates", []), "again": made.values.get("winners_curse"),
            "costs": made.values.get("costs"), "documents": documents_of(made.report),
            "left": left_of(trials), "eta_seconds": left_of(trials)["seconds"],
        }))  # fmt: skip

    def report(self, library: "Library", identity: str) -> bytes:
        """The report of a sweep as Markdown."""
        return self._results(library.sweep(identity)).report.encode("utf-8", "backslashreplace")

    def _results(self, folder: SweepFolder) -> _Made:
        with self._turn:
            key, made = _key_of(folder), self._made.get(folder.path)
            if made and (made.key == key or time.monotonic() - made.at < _REST * made.took):
                return made
            began = time.monotonic()
            values, report = self._make(folder)
            now = time.monotonic()
            self._made[folder.path] = found = _Made(key, values, report, now - began, now)
            return found

    def _make(self, folder: SweepFolder) -> tuple[dict[str, Any], str]:
        journals = [_size(path / "journal.jsonl") for path in _folders(folder.runs)]
        if sum(journals) > _LARGE or len(journals) > _MANY:
            return self._make_elsewhere(folder)
        decided = Decisions.read(folder.path)
        sweep = read_begun(folder, decided)
        if not sweep.trials:
            return {"metric": None, "trials": []}, ""
        made = make_deliverables(sweep, partial(find_runs_of, runs=folder.runs), decided)
        return made.to_dict(), write_sections(made, ())

    def _make_elsewhere(self, folder: SweepFolder) -> tuple[dict[str, Any], str]:
        with durable.temporary_folder("etude-sweep-") as out:
            place = str(folder.path.absolute())
            code, answer = self._programs.sweep.ask("sweep", "report", place, "--out", str(out))
            if code:
                raise InputError(problem_of(answer))
            return answer, durable.read_text(out / "report.md", most_bytes=_DOCUMENT_BYTES, follow=False)


def documents_of(report: str) -> list[dict[str, str]]:
    """The sections of a report, the verdict first, each with its title, as HTML."""
    parts = re.split(r"^## ", report, flags=re.MULTILINE) if report else []
    found = []
    for place, part in enumerate(parts):
        title, _, text = part.partition("\n") if place else ("Verdict", "", part.partition("\n")[2])
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        found.append(
            {"name": name, "title": html.unescape(title.strip()), "html": to_body(text, lambda *_: "")}
        )
    return found


def left_of(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The trials that are left and the seconds they take, by the mean of those that ended, None without."""
    took = [each["wall_seconds"] for each in trials if each["is_final"] and each["wall_seconds"]]
    left = [each for each in trials if not each["is_final"]]
    left = [each for each in left if not each["state"].startswith(("not started", "censored"))]
    running = max(sum(each["state"] == "running" for each in left), 1)
    seconds = len(left) * sum(took) / len(took) / running if took and left else (0.0 if not left else None)
    basis = f"by the mean of {plural(len(took), 'trial')} that ended, {running:,} at once" if took else ""
    words = f"about {duration(round(seconds))} left, {basis}" if seconds else ""
    return {"trials": len(left), "seconds": seconds, "basis": basis, "words": words}


def _trial(entry: Mapping[str, Any], ids: Mapping[str, str], metric: Any) -> dict[str, Any]:
    return {
        **{name: value for name, value in entry.items() if name not in ("trial", "sources")},
        "name": entry["trial"], "id": ids.get(str(entry["run"])), "metric": metric,
        "cost_seconds": entry["device_seconds_alone"],
    }  # fmt: skip


def _counts(trials: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in trials:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
    return counts


def _axes(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The axes of parallel coordinates: the model and each key that trials differ in, with its values."""
    keys = dict.fromkeys(key for each in trials for key in each["values"])
    columns = {"model": [each["model"] for each in trials]}
    columns |= {key: [each["values"].get(key) for each in trials] for key in keys}
    axes = []
    for key, values in columns.items():
        different = list({repr(value): value for value in values if value is not None}.values())
        if len(different) < 2:
            continue
        is_number = all(isinstance(each, int | float) and not isinstance(each, bool) for each in different)
        if is_number:
            different.sort()
        low = different[0] if is_number else None
        is_log = is_number and low > 0 and different[-1] >= _WIDE * low  # type: ignore[operator]
        axes.append({
            "key": key, "title": key_title(key), "kind": "number" if is_number else "text",
            "log": bool(is_log), "values": different,
        })  # fmt: skip
    return axes


def _heat(trials: Sequence[Mapping[str, Any]], sign: int) -> dict[str, Any] | None:
    """The best final value for each pair of values of two keys; trials of searches are in none."""
    of_grids = [each for each in trials if each["values"]]
    keys = list(dict.fromkeys(key for each in of_grids for key in each["values"]))
    if not keys:
        return None
    x = horizon_of(keys)
    y = next((key for key in keys if key != x), "model")
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for each in of_grids:
        at = each["values"].get(x), each["model"] if y == "model" else each["values"].get(y)
        empty = {"x": at[0], "y": at[1], "value": None, "trials": [], "states": []}
        cell = cells.setdefault((repr(at[0]), repr(at[1])), empty)
        cell["trials"].append(each["name"])
        cell["states"].append(each["state"])
        if each["is_final"] and each["value"] is not None:
            known = cell["value"]
            cell["value"] = each["value"] if known is None else sign * max(sign * known, sign * each["value"])
    return {"x": x, "y": y, "cells": list(cells.values())}


def _key_of(folder: SweepFolder) -> Key:
    stamps: list[Any] = [_stamp(folder.path / name) for name in ("sweep.toml", "decisions.jsonl", "trials")]
    return (*stamps, *((path.name, key_of(path)) for path in _folders(folder.runs)))


def _folders(runs: Path) -> list[Path]:
    try:
        return sorted(path for path in runs.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _size(path: Path) -> int:
    return _stamp(path)[0]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.lstat()
        return status.st_size, status.st_mtime_ns
    except OSError:
        return 0, 0
