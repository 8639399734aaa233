"""Models of runs with weights of 4 or 8 bits: made, measured against the original, and written."""
