"""Scores and samples of a model."""
