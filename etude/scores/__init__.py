"""Figures from predictions, over all of them at once; numpy and plain Python."""
