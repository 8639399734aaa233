"""Recipes: what to do, as data."""
