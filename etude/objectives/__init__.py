"""The kinds of training: one file each holds a loss, its figures and its examination."""
