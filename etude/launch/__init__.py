"""Runs that are started by others than a person: the ranks of one run, the seeds of one recipe."""
