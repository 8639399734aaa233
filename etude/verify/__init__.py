"""Training documents of anybody, checked for figures that contradict each other; no model and no network."""
