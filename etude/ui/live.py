"""The figures of a run that goes on, as its last records leave them.

All figures take as long to make as the journal is; those that change with every step are in its columns.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from etude.errors import EtudeError
from etude.records.store import Run
from etude.report.history import History
from etude.report.summary import Summary
from etude.ui.columns import AXES, Columns, open_columns
from etude.ui.tables import is_missing

_STEP, _TOKENS, _SECONDS = map(AXES.index, ("step", "tokens", "seconds"))
_PATIENCE_SECONDS = 0.25


def live_figures(columns: Columns) -> dict[str, Any]:
    """Step, training loss, gap and speed by the names of a summary; those that are not known are left out."""
    with columns.turn:
        count = columns.steps.count
        if not count or columns.part < 1:
            return {}
        last = columns.steps.rows(count - 1, count)[0]
        seconds = float(last[_SECONDS])
        figures = {
            "step": int(last[_STEP]), "last_loss": columns.mean_loss(), "gap": _gap(columns),
            "tokens_per_second": float(last[_TOKENS]) / seconds if seconds > 0 else None,
        }  # fmt: skip
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def follow(summary: Summary, run: Run, history: History) -> Summary:
    """The summary of a run that goes on with the figures of its last records in place of earlier ones."""
    try:
        columns = open_columns(run)
        columns.update(_PATIENCE_SECONDS)
        figures = live_figures(columns)
        beat = float(run.lease.get("heartbeat", 0.0))
    except EtudeError:  # the charts, which read the same, say why
        return summary
    if figures.get("step", 0) < summary["step"]:
        return summary
    told = history.ledger.entries
    figures["wall_seconds"] = max(
        history.wall_seconds + max(beat - told[-1].time if told else 0.0, 0.0), summary["wall_seconds"]
    )
    return Summary([
        replace(each, value=figures[each.name]) if each.name in figures else each for each in summary.figures
    ])  # fmt: skip


def _gap(columns: Columns) -> float | None:
    """The gap at the last evaluation, over as many steps as a run of this length takes."""
    table = columns.evaluations
    if not table.count:
        return None
    table.flush()
    last = table.rows(table.count - 1, table.count)[0]
    loss, gap = (last[table.columns.index(name)] for name in ("validation/loss", "gap"))
    mean = None if is_missing(np.array([gap]))[0] else columns.mean_loss(float(last[_STEP]))
    return None if mean is None else float(loss) - mean
