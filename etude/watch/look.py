"""A look at a run, by its journal or by the log of any tool: points, findings, and what is left open."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.records.events import Attempt, DataUsed, Finding
from etude.records.store import Run
from etude.watch.journal import facts_of, points_of
from etude.watch.logs import read_log
from etude.watch.point import Facts, Point
from etude.watch.unknown import Unknown, list_unknown
from etude.watch.watcher import Watcher

_FIGURES = (
    "loss", "eval_loss", "grad_norm", "learning_rate", "loss_scale", "update_ratio", "seconds",
    "wait_seconds", "tokens_per_second", "memory_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """A run as its figures show it.

    name     of the run, or the path of the log
    format   words for the form of the log; "" for a run of etude
    unit     of its steps: "step", "epoch", or "row" where the log names neither
    columns  names of the figures in the log, by the field of `Point`
    others   number of other runs in the log, before this one
    """

    name: str
    points: list[Point]
    facts: Facts
    findings: list[Finding]
    unknown: list[Unknown]
    format: str = ""
    unit: str = "step"
    columns: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    others: int = 0

    @property
    def figures(self) -> list[str]:
        """The fields of `Point` that some point has."""
        return [name for name in _FIGURES if any(getattr(point, name) is not None for point in self.points)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `etude watch --json` prints them."""
        return {
            "name": self.name,
            "format": self.format or "run of etude",
            "unit": self.unit,
            "points": len(self.points),
            "first_step": self.points[0].step,
            "last_step": self.points[-1].step,
            "figures": {name: self.columns.get(name, name) for name in self.figures},
            "facts": asdict(self.facts),
            "findings": [asdict(finding) for finding in self.findings],
            "unknown": [each._asdict() for each in self.unknown],
            "notes": self.notes,
            "other_runs": self.others,
        }


def look_at_log(path: Path) -> Look:
    """A look at the last run of a log, or of the newest log of a folder. Raises: InputError."""
    log = read_log(path)
    *others, run = log.runs
    facts = Facts(**run.facts)
    watcher = _watch(run.points, facts)
    return Look(
        name=str(log.path),
        points=run.points,
        facts=facts,
        findings=watcher.findings,
        unknown=list_unknown(run.points, facts, watcher.untold(), has_model=False),
        format=log.format,
        unit=run.unit,
        columns=run.names,
        notes=run.notes,
        others=len(others),
    )


def look_at_run(run: Run) -> Look:
    """A look at a run of etude: what was found while it went on, and what its figures show besides.

    Raises: InputError if it has made no step yet.
    """
    events = [entry.event for entry in run.ledger().entries]
    attempts = [event for event in events if isinstance(event, Attempt)]
    points = list(points_of(events))
    if not points:
        raise InputError(f"run {run.name} has made no step yet; try again later, or etude watch --follow")
    data = next((event for event in events if isinstance(event, DataUsed)), None)
    facts = facts_of(run.recipe, attempts[0], data, has_first_weights=bool(run.info.get("weights")))
    recorded = [event for event in events if isinstance(event, Finding) and event.kind]
    known = {finding.kind for finding in recorded}
    watcher = _watch(points, facts)
    besides = [finding for finding in watcher.findings if finding.kind not in known]
    findings = sorted([*recorded, *besides], key=lambda finding: finding.step)
    unknown = list_unknown(points, facts, watcher.untold(), has_model=True)
    return Look(run.name, points, facts, findings, unknown)


def _watch(points: Iterable[Point], facts: Facts) -> Watcher:
    watcher = Watcher.of(facts)
    watcher.add(*points)
    return watcher
