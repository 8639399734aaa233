"""Sweeps: many trials of one base recipe, planned as one, with the work that they share done once."""
