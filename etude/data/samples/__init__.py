"""Shapes of samples: one file each turns documents into tokens, and prepared tokens into samples."""
