"""Observations of a run and its machine while it goes on, and what they show."""

from etude.watch.watcher import Watcher

__all__ = ["Watcher"]
