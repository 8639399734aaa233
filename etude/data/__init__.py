"""From raw files to batches of token ids, in numpy."""
