"""The benchmark of the watch: a grid of runs, faults that are put into them, and scores."""
