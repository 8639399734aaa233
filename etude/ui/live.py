"""The figures of a run that goes on, as its last records leave them.

All figures take as long to make as the journal is; those that change with every step are in its columns.
"""

import math
from typing import Any

import numpy as np

from etude.errors import EtudeError
from etude.records.store import Run
from etude.report.history import History
from etude.report.summary import Summary, renew
from etude.ui.columns import AXES, Columns, open_columns
from etude.ui.tables import is_missing

_STEP, _TOKENS, _SECONDS = map(AXES.index, ("step", "tokens", "seconds"))
_PATIENCE_SECONDS = 0.25


def live_figures(columns: Columns) -> dict[str, Any]:
    """Step, training loss, gap, speed and time by the names of a summary; what is not known is left out.

    training_seconds: of the steps that count, without those that were done again
    """
    with columns.turn:
        count = columns.steps.count
        if not count or columns.part < 1:
            return {}
        last = columns.steps.rows(count - 1, count)[0]
        seconds = float(last[_SECONDS])
        figures = {
            "step": int(last[_STEP]), "last_loss": columns.mean_loss(), "loss_window": columns.loss_window,
            "gap": _gap(columns), "training_seconds": seconds,
            "tokens_per_second": float(last[_TOKENS]) / seconds if seconds > 0 else None,
        }  # fmt: skip
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def follow(summary: Summary, run: Run, history: History) -> Summary:
    """The summary of a run that goes on with the figures of its last records in place of earlier ones.

    history: all that was told of the run, without its steps
    """
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
    if "training_seconds" in figures:
        figures["training_seconds"] += summary["rework_seconds"]
    if history.attempts and "step" in figures:
        figures["epochs"] = figures["step"] / history.attempts[-1].steps_per_epoch
    return renew(summary, history, figures)


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
