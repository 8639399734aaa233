"""Requests from outside to a run that is going on."""
