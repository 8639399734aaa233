"""Logs of any training tool as the points and facts that a watch reads."""

from etude.watch.logs.read import Log, read_log
from etude.watch.logs.steps import Run

__all__ = ["Log", "Run", "read_log"]
