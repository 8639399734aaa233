"""Observations of a run and its machine while it goes on."""
