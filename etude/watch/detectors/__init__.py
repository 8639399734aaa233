"""Detectors: each names one condition of a run from the points of its log."""
