"""The curves of the benchmark: one compressed file a run, small enough to be kept with the code."""

import gzip
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import FOLDER

from etude import durable
from etude.records.events import Finding
from etude.watch.point import Facts, Point

CURVES = FOLDER / "results" / "watch"
_DIGITS = {"loss": 5, "eval_loss": 5}
_FEW_DIGITS = 3
_FIGURES = [field.name for field in fields(Point) if field.name != "metrics"]


@dataclass(frozen=True)
class Curve:
    """One run: what it was, what its journal held, and what the tests with the model found while it went on.

    case      combination, condition, strength, seed and is_healthy, as in cases.Case
    onset     the step after which the fault acts; 0: from the start
    recorded  the findings of the run itself that have a kind
    ending    how the run ended, with the reason
    version   that of the cases when it was made, cases.VERSION
    """

    case: dict[str, Any]
    onset: int
    facts: Facts
    points: list[Point]
    recorded: list[Finding]
    ending: str
    version: int = 1

    @property
    def name(self) -> str:
        return "{condition}-{strength}-{combination}-{seed}".format(**self.case)

    @property
    def final_loss(self) -> tuple[float, float]:
        """The last validation loss and its standard error; NaN where there is none."""
        last = next((each for each in reversed(self.points) if each.eval_loss is not None), None)
        if last is None or last.eval_loss is None:
            return math.nan, math.nan
        return last.eval_loss, last.eval_error or math.nan

    @property
    def has_lost(self) -> bool:
        """True if validation at the end has lost over half of what it had gained, beyond its errors."""
        scored = [each for each in self.points if each.eval_loss is not None]
        if not scored:
            return False
        losses = [each.eval_loss or 0.0 for each in scored]
        best = scored[losses.index(min(losses))]
        error = math.hypot(best.eval_error or 0.0, scored[-1].eval_error or 0.0)
        return losses[-1] - min(losses) > max(0.5 * (losses[0] - min(losses)), 3 * error)


def write_curve(curve: Curve, folder: Path = CURVES) -> Path:
    """Keep a curve: figures by column, rounded, those that no point has left out."""
    columns = {name: _column(curve.points, name) for name in _FIGURES}
    columns = {
        name: column for name, column in columns.items() if any(each not in (None, False) for each in column)
    }
    metrics = [
        {key: _short(value, _FEW_DIGITS) for key, value in each.metrics.items()} for each in curve.points
    ]
    content = {
        "case": curve.case,
        "onset": curve.onset,
        "facts": {name: value for name, value in asdict(curve.facts).items() if value is not None},
        "points": {**columns, "metrics": metrics if any(metrics) else []},
        "recorded": [_slim(each) for each in curve.recorded],
        "ending": curve.ending,
        "version": curve.version,
    }
    text = json.dumps(content, separators=(",", ":"))
    durable.make_folder(folder)
    path = folder / f"{curve.name}.json.gz"
    durable.write_file(path, gzip.compress(text.encode(), 9, mtime=0))
    return path


def read_curve(path: Path) -> Curve:
    """A curve as `write_curve` keeps it."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    columns = {name: values for name, values in content["points"].items() if values}
    points = [
        Point(**{name: value for name, value in zip(columns, row) if value is not None})
        for row in zip(*([_value(each) for each in values] for values in columns.values()))
    ]
    recorded = [Finding(**each) for each in content["recorded"]]
    facts = Facts(**content["facts"])
    rest = content["ending"], content.get("version", 1)
    return Curve(content["case"], content["onset"], facts, points, recorded, *rest)


def read_curves(folder: Path = CURVES) -> list[Curve]:
    return [read_curve(path) for path in sorted(folder.glob("*.json.gz"))]


def _column(points: Sequence[Point], name: str) -> list[Any]:
    digits = _DIGITS.get(name, _FEW_DIGITS if name not in ("step", "targets", "epoch") else 7)
    return [_short(getattr(point, name), digits) for point in points]


def _short(value: Any, digits: int) -> Any:
    """A number with so many significant digits; as text where it is not finite."""
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)


def _value(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _slim(finding: Finding) -> dict[str, Any]:
    """The parts of a finding that scoring reads, and enough of it for a person."""
    kept = {name: value for name, value in asdict(finding).items() if value not in (None, [], {}, "")}
    kept["advice"] = ""
    return kept


def is_alarm(finding: Finding) -> bool:
    """True if it names a fault: a warning or an error with a kind. An info does not."""
    return bool(finding.kind) and finding.severity in ("warning", "error")


def first_alarms(findings: Iterable[Finding]) -> list[Finding]:
    """The alarms in the order of their steps, errors first within a step."""
    return sorted(filter(is_alarm, findings), key=lambda each: (each.step, each.severity != "error"))
