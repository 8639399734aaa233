"""Families of models: each is one module and a row of `table.py`."""
